// Data that an earlier version prepared is still the data that its runs have seen.
#include <gtest/gtest.h>

#include <filesystem>

#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/rows/dataset_chunks.h"

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

std::unique_ptr<DatasetChunks> open(const std::string& folder) {
  return DatasetChunks::open(folder, 4, DocumentPacking::kCut).value();
}

// The formula of version 0.1.0.
std::string old_fingerprint(const DatasetInfo& info) {
  const DatasetInfo::Shard& shard = info.shards[0];
  return sha256_hex(absl::StrCat("uint16 10 0 ", sha256_hex(kTokenizer), " ", shard.tokens, " ",
                                 shard.documents, " ", shard.sha256));
}

TEST(DatasetIdentity, IsTheSameForOldAndNewFolders) {
  const std::string folder = folder_of(1);
  const std::string now = open(folder)->fingerprint();
  EXPECT_EQ(now.substr(0, 3), "v2:");
  forget_meaning(folder);
  const auto old = open(folder);
  EXPECT_EQ(old->fingerprint(), now);
  EXPECT_EQ(old->dataset().info().tokenizer.meaning,
            identify_tokenizer(kTokenizer, "test")->meaning);
}

TEST(DatasetIdentity, MatchesWhatRunsOfTheFirstVersionWroteDown) {
  const std::string folder = folder_of(1);
  const auto data = open(folder);
  const std::string old = old_fingerprint(data->dataset().info());
  EXPECT_TRUE(data->matches(old));
  EXPECT_TRUE(data->matches(data->fingerprint()));
  const auto other = open(folder_of(4));
  EXPECT_FALSE(other->matches(old));
  EXPECT_FALSE(other->matches(data->fingerprint()));
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
    const auto data = open(folder);
    EXPECT_EQ(data->dataset().info().tokenizer.meaning, "");
    EXPECT_EQ(data->fingerprint(), old_fingerprint(data->dataset().info()));
  }
}

}  // namespace
}  // namespace emo
