// Data that an earlier version prepared is still the data that its runs have seen.
#include <gtest/gtest.h>

#include <filesystem>

#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/shards/shard_writer.h"
#include "tests/data/rows/rows_of.h"

namespace emo {
namespace {

constexpr char kTokenizer[] = R"({"model": {"vocab": {"a": 0}, "merges": []}})";

std::string folder_of(int32_t token) {
  const std::string folder = testing::TempDir() + "identity";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  DatasetInfo info;
  info.vocab_size = 10;
  info.tokenizer = identify_tokenizer(kTokenizer, "test").value();
  ShardWriter writer(posix_file_system(), folder, info, 1 << 20);
  EXPECT_TRUE(writer.append({token, 2, 3, 0}, 3, "text", "id").ok());
  EXPECT_TRUE(writer.finish().ok());
  EXPECT_TRUE(write_file_durably(posix_file_system(), folder + "/tokenizer.json", kTokenizer).ok());
  return folder;
}

// dataset.json as version 0.1.0 wrote it.
void forget_meaning(const std::string& folder) {
  Json json = read_json_file(folder + "/dataset.json").value();
  EXPECT_EQ(json.erase("tokenizer_identity"), 1u);
  EXPECT_TRUE(write_file_durably(posix_file_system(), folder + "/dataset.json", json.dump()).ok());
}

std::unique_ptr<TokenChunks> open(const std::string& folder) {
  return rows_of_folder(folder, 4).value();
}

// Formulas of older versions: of 0.1.0, and of those that knew what a tokenizer means.
std::string old_fingerprint(const std::string& folder, const std::string& tokenizer,
                            const std::string& rows = "") {
  const DatasetInfo::Shard shard = read_dataset_info(folder)->shards[0];
  return sha256_hex(absl::StrCat("uint16 10 0 ", tokenizer, " ", shard.tokens, " ", shard.documents,
                                 " ", shard.sha256, rows));
}

const std::string& by_bytes() {
  static const std::string hash = sha256_hex(kTokenizer);
  return hash;
}

TEST(DatasetIdentity, IsTheSameForOldAndNewFolders) {
  const std::string folder = folder_of(1);
  const std::string now = open(folder)->fingerprint();
  EXPECT_EQ(now.substr(0, 3), "v3:");
  forget_meaning(folder);
  EXPECT_EQ(open(folder)->fingerprint(), now);
  EXPECT_EQ(read_dataset_info(folder)->tokenizer.meaning,
            identify_tokenizer(kTokenizer, "test")->meaning);
}

TEST(DatasetIdentity, MatchesWhatRunsOfOlderVersionsWroteDown) {
  const std::string folder = folder_of(1);
  const std::string first = old_fingerprint(folder, by_bytes());
  const std::string second =
      "v2:" + old_fingerprint(folder, read_dataset_info(folder)->tokenizer.meaning);
  const auto data = open(folder);
  EXPECT_TRUE(data->matches(first));
  EXPECT_TRUE(data->matches(second));
  EXPECT_TRUE(data->matches(data->fingerprint()));
  const auto whole = rows_of_folder(folder, 4, DocumentPacking::kWhole).value();
  EXPECT_FALSE(whole->matches(first));
  EXPECT_TRUE(whole->matches(old_fingerprint(folder, by_bytes(), " whole documents")));
  const auto other = open(folder_of(4));
  EXPECT_FALSE(other->matches(first));
  EXPECT_FALSE(other->matches(second));
  EXPECT_FALSE(other->matches(data->fingerprint()));
}

// The same ids with another record: a question of which more is given has other labels.
TEST(DatasetIdentity, IsOfRecordsToo) {
  const auto fingerprint = [](uint32_t context, const std::string& source) {
    const std::string folder = testing::TempDir() + "identity";
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    DatasetInfo info;
    info.vocab_size = 10;
    ShardWriter writer(posix_file_system(), folder, info, 1 << 20);
    EXPECT_TRUE(writer.append({1, 2, 3, 0}, 3, "text", "id").ok());
    EXPECT_TRUE(writer.append({1, 2, 3, 0}, 3, source, "id", context).ok());
    EXPECT_TRUE(writer.finish().ok());
    return open(folder)->fingerprint();
  };
  EXPECT_NE(fingerprint(0, "text"), fingerprint(2, "text"));
  EXPECT_NE(fingerprint(0, "text"), fingerprint(0, "other"));
}

// dataset.json describes what emo prepare wrote; ids that were put in their place since are other
// data.
TEST(DatasetIdentity, IsOfWhatLiesThereToo) {
  const std::string folder = folder_of(1);
  const std::string before = open(folder)->fingerprint();
  const std::vector<uint16_t> others = {4, 2, 3, 0};
  EXPECT_TRUE(write_file_durably(posix_file_system(), folder + "/tokens-00000.npy",
                                 {reinterpret_cast<const char*>(others.data()), 8})
                  .ok());
  EXPECT_FALSE(open(folder)->matches(before));
}

TEST(DatasetIdentity, RecordsThatWerePutInThePlaceOfOthersAreOtherData) {
  const std::string folder = folder_of(1);
  const std::string before = open(folder)->fingerprint();
  const DocumentRecord other{4, 3, 0, 2};
  EXPECT_TRUE(write_file_durably(posix_file_system(), folder + "/tokens-00000.index",
                                 {reinterpret_cast<const char*>(&other), sizeof other})
                  .ok());
  EXPECT_FALSE(open(folder)->matches(before));
}

// Nothing says what a tokenizer means whose copy is gone, or no longer the one.
TEST(DatasetIdentity, WithoutItsTokenizerOnlyTheBytesAreKnown) {
  for (const bool gone : {true, false}) {
    const std::string folder = folder_of(1);
    forget_meaning(folder);
    if (gone) {
      std::filesystem::remove(folder + "/tokenizer.json");
    } else {
      EXPECT_TRUE(write_file_durably(posix_file_system(), folder + "/tokenizer.json", "{}").ok());
    }
    EXPECT_EQ(read_dataset_info(folder)->tokenizer.meaning, "");
    EXPECT_TRUE(open(folder)->matches(old_fingerprint(folder, by_bytes())));
  }
}

}  // namespace
}  // namespace emo
