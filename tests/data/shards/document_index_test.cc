#include "data/shards/document_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "data/order/random_bits.h"
#include "data/shards/end_file.h"
#include "data/shards/shard_set.h"
#include "tests/data/files/memory_file.h"
#include "tests/data/rows/rows_of.h"

namespace emo {
namespace {

using ::testing::HasSubstr;

// A file in memory that counts its reads.
class CountedFile : public ReadableFile {
 public:
  CountedFile(std::string bytes, int64_t* reads) : file_(std::move(bytes)), reads_(reads) {}
  const std::string& path() const override { return file_.path(); }
  int64_t size() const override { return file_.size(); }
  absl::Status read(int64_t begin, int64_t count, char* to) const override {
    ++*reads_;
    return file_.read(begin, count, to);
  }

 private:
  const MemoryFile file_;
  int64_t* reads_;
};

int64_t draw(uint64_t* number, int64_t below) {
  return static_cast<int64_t>(
      random_below(random_bits(7, ++*number, 0), static_cast<uint64_t>(below)));
}

std::vector<DocumentRecord> records_of(int64_t count, int64_t longest, uint64_t* number) {
  std::vector<DocumentRecord> records;
  uint64_t end = 0;
  for (int64_t d = 0; d < count; ++d) {
    // Long ones among short ones, so that proportion misleads.
    const int64_t length = 1 + draw(number, d % 97 == 0 ? longest * 50 : longest);
    end += static_cast<uint64_t>(length);
    records.push_back({end, static_cast<uint64_t>(d), static_cast<uint32_t>(d % 3),
                       static_cast<uint32_t>(draw(number, length))});
  }
  return records;
}

std::string bytes_of(const std::vector<DocumentRecord>& records, DocumentIndex::Records kind) {
  std::string bytes(8, 'x');  // before the first record
  for (const DocumentRecord& record : records) {
    bytes.append(reinterpret_cast<const char*>(&record),
                 kind == DocumentIndex::Records::kWhole ? sizeof record : sizeof record.end);
  }
  return bytes;
}

absl::StatusOr<DocumentIndex> index_of(const std::vector<DocumentRecord>& records,
                                       DocumentIndex::Records kind, int64_t* reads) {
  return DocumentIndex::open(
      std::make_unique<CountedFile>(bytes_of(records, kind), reads),
      {kind, 8, static_cast<int64_t>(records.size()), static_cast<int64_t>(records.back().end), 3});
}

// Against walking through all documents.
TEST(DocumentIndex, FindsWhatAWalkFinds) {
  uint64_t number = 0;
  for (const int64_t count : {1, 2, 169, 170, 171, 5000}) {
    const std::vector<DocumentRecord> records = records_of(count, 1 + draw(&number, 60), &number);
    for (const auto kind : {DocumentIndex::Records::kWhole, DocumentIndex::Records::kEnds}) {
      int64_t reads = 0;
      const auto index = index_of(records, kind, &reads);
      ASSERT_TRUE(index.ok()) << index.status();
      const auto tokens = static_cast<int64_t>(records.back().end);
      for (int trial = 0; trial < 200; ++trial) {
        const int64_t begin = draw(&number, tokens);
        const int64_t end = begin + 1 + draw(&number, std::min<int64_t>(tokens - begin, 9000));
        std::vector<StoredDocument> found;
        ASSERT_TRUE(index->find(begin, end, &found).ok());
        size_t at = 0;
        int64_t before = 0;
        for (size_t d = 0; d < records.size(); ++d) {
          const auto after = static_cast<int64_t>(records[d].end);
          if (before < end && after > begin) {
            ASSERT_LT(at, found.size());
            EXPECT_EQ(found[at].number, static_cast<int64_t>(d));
            EXPECT_EQ(found[at].begin, before);
            EXPECT_EQ(found[at].end, after);
            const bool whole = kind == DocumentIndex::Records::kWhole;
            EXPECT_EQ(found[at].source, whole ? records[d].source : 0);
            EXPECT_EQ(found[at].context, whole ? records[d].context : 0);
            ++at;
          }
          before = after;
        }
        EXPECT_EQ(at, found.size());
      }
    }
  }
}

TEST(DocumentIndex, ReadsAFewPagesOfAMillionRecords) {
  uint64_t number = 0;
  const std::vector<DocumentRecord> records = records_of(1000000, 800, &number);
  int64_t reads = 0;
  const auto index = index_of(records, DocumentIndex::Records::kWhole, &reads);
  EXPECT_EQ(reads, 1);  // to open it
  reads = 0;
  std::vector<StoredDocument> found;
  for (int trial = 0; trial < 1000; ++trial) {
    const int64_t begin = draw(&number, static_cast<int64_t>(records.back().end) - 4096);
    ASSERT_TRUE(index->find(begin, begin + 4096, &found).ok());
  }
  EXPECT_LT(reads, 4000);
}

// Any byte may be any other: an answer is then an error or what the records say, and it comes.
TEST(DocumentIndex, DamagedRecordsNeverHangNorLeaveTheFile) {
  uint64_t number = 0;
  const std::vector<DocumentRecord> records = records_of(700, 40, &number);
  const auto tokens = static_cast<int64_t>(records.back().end);
  int refused = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::string bytes = bytes_of(records, DocumentIndex::Records::kWhole);
    for (int64_t flips = 1 + draw(&number, 40); flips > 0; --flips) {
      bytes[8 + static_cast<size_t>(draw(&number, static_cast<int64_t>(bytes.size()) - 8))] =
          static_cast<char>(draw(&number, 256));
    }
    int64_t reads = 0;
    const auto index = DocumentIndex::open(std::make_unique<CountedFile>(bytes, &reads),
                                           {DocumentIndex::Records::kWhole, 8, 700, tokens, 3});
    if (!index.ok()) continue;
    for (int look = 0; look < 8; ++look) {
      const int64_t begin = draw(&number, tokens - 100);
      std::vector<StoredDocument> found;
      const absl::Status status = index->find(begin, begin + 100, &found);
      refused += status.ok() ? 0 : 1;
      if (!status.ok()) {
        EXPECT_THAT(std::string(status.message()), HasSubstr("is damaged"));
        continue;
      }
      ASSERT_FALSE(found.empty());
      EXPECT_TRUE(found.front().begin <= begin && begin + 100 <= found.back().end);
      for (size_t i = 1; i < found.size(); ++i) EXPECT_EQ(found[i].begin, found[i - 1].end);
    }
  }
  EXPECT_GT(refused, 1000);
}

class EndFileTest : public ::testing::Test {
 protected:
  EndFileTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/index/ends");
  }
  // Ids of 1 to 9, an end of document (0) after every 50 on average; at the end if asked.
  TokenFile write(int64_t tokens, bool ends) {
    uint64_t number = 3;
    ids_.assign(static_cast<size_t>(tokens), 0);
    for (uint16_t& id : ids_) {
      id = static_cast<uint16_t>(draw(&number, 50) == 0 ? 0 : 1 + draw(&number, 9));
    }
    ids_.back() = ends ? 0 : 5;
    std::ofstream(folder_ + "/ids.npy", std::ios::binary)
        .write(reinterpret_cast<const char*>(ids_.data()),
               static_cast<std::streamsize>(ids_.size() * 2));
    return TokenFile::open(folder_ + "/ids.npy", 2).value();
  }
  std::string index(const TokenFile& file, int threads) {
    const DataFile mark = mark_of(file, sampled_ids(file).value());
    const std::string path = path_of_ends(folder_ + "/index", mark, 0);
    int64_t seen = 0;
    const auto scanned = write_ends(posix_file_system(), file, 10, 0, threads, path,
                                    [&](int64_t tokens) { seen += tokens; });
    EXPECT_TRUE(scanned.ok()) << scanned.status();
    EXPECT_EQ(seen, file.tokens());
    return path;
  }
  const std::string folder_ = ::testing::TempDir() + "/emo_end_file_test";
  std::vector<uint16_t> ids_;
};

TEST_F(EndFileTest, HoldsTheEndsWhateverTheThreads) {
  for (const bool ends : {true, false}) {
    const int64_t tokens = (int64_t{1} << 22) * 2 + 12345;  // three blocks
    const TokenFile file = write(tokens, ends);
    const std::string bytes = read_file(index(file, 1), 1 << 30).value();
    EXPECT_EQ(read_file(index(file, 3), 1 << 30).value(), bytes);
    const auto opened = EndFile::open(index(file, 2), tokens);
    ASSERT_TRUE(opened.ok()) << opened.status();
    std::vector<int64_t> expected, found;
    for (int64_t t = 0; t < tokens; ++t) {
      if (ids_[t] == 0 || t + 1 == tokens) expected.push_back(t + 1);
    }
    ASSERT_TRUE(opened->documents
                    .read(0, opened->documents.documents(),
                          [&](const StoredDocument& each) { found.push_back(each.end); })
                    .ok());
    EXPECT_EQ(found, expected);
  }
}

// Rows have the spans that they have without an index, and documents have numbers.
TEST_F(EndFileTest, RowsHaveTheSpansThatAScanFinds) {
  const TokenFile file = write(100000, false);
  index(file, 2);
  FileSetOptions how{.vocab_size = 10, .width = 2, .eos_id = 0};
  const auto scanned = rows_of_files({{"x", file.path()}}, how, {128}).value();
  how.index = folder_ + "/index";
  const auto indexed = rows_of_files({{"x", file.path()}}, how, {128}).value();
  EXPECT_EQ(scanned->fingerprint(), indexed->fingerprint());
  int64_t last = -1;
  for (int64_t chunk = 0; chunk < scanned->num_chunks(); ++chunk) {
    std::vector<int32_t> a(128), b(128), ends, again;
    std::vector<SpanSource> sources, numbered;
    ASSERT_TRUE(scanned->read(chunk, a.data(), &ends, &sources).ok());
    ASSERT_TRUE(indexed->read(chunk, b.data(), &again, &numbered).ok());
    EXPECT_EQ(a, b);
    EXPECT_EQ(ends, again);
    for (const SpanSource& span : numbered) {
      EXPECT_TRUE(span.document == last || span.document == last + 1);
      last = span.document;
    }
  }
  EXPECT_GT(last, 1000);
}

// An index whose file has changed since in a place that no sample sees.
TEST_F(EndFileTest, DocumentsThatDoNotEndWhereTheIndexSaysAreRefused) {
  const TokenFile file = write(100000, true);
  index(file, 2);
  const FileSetOptions how{.vocab_size = 10, .width = 2, .eos_id = 0, .index = folder_ + "/index"};
  for (const uint16_t id : {uint16_t{0}, uint16_t{7}}) {
    const int64_t at = id == 0 ? std::find(ids_.begin() + 20000, ids_.end(), 3) - ids_.begin()
                               : std::find(ids_.begin() + 20000, ids_.end(), 0) - ids_.begin();
    std::fstream changed(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    changed.seekp(at * 2);
    changed.write(reinterpret_cast<const char*>(&id), 2);
    changed.close();
    const auto rows = rows_of_files({{"x", file.path()}}, how, {128}).value();
    std::vector<int32_t> tokens(128), ends;
    std::vector<SpanSource> sources;
    const absl::Status status = rows->read(at / 128, tokens.data(), &ends, &sources);
    EXPECT_TRUE(absl::IsDataLoss(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("run emo data index again"));
    write(100000, true);
  }
}

TEST_F(EndFileTest, WhatIsCutIsRefused) {
  const TokenFile file = write(3000, true);
  const std::string path = index(file, 1);
  const std::string bytes = read_file(path, 1 << 20).value();
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 50) {
    std::ofstream(path, std::ios::binary) << bytes.substr(0, size);
    const auto opened = EndFile::open(path, 3000);
    EXPECT_TRUE(absl::IsDataLoss(opened.status())) << size;
  }
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_TRUE(EndFile::open(path, 3000).ok());
  EXPECT_TRUE(absl::IsDataLoss(EndFile::open(path, 3001).status()));
}

}  // namespace
}  // namespace emo
