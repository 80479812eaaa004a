#include "data/rows/loader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "data/order/random_bits.h"
#include "data/rows/synthetic.h"
#include "data/shards/shard_writer.h"
#include "data/shards/token_dataset.h"
#include "tests/data/rows/rows_of.h"

namespace emo {
namespace {

std::string fresh_folder(const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/emo_" + name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

// Documents of lengths 1, 2, 3, ... with tokens that tell where they come from; end token 0.
std::string write_documents(int count, int64_t tokens_per_shard) {
  const std::string folder = fresh_folder("loader");
  DatasetInfo info;
  info.vocab_size = 1000;
  info.eos_id = 0;
  ShardWriter writer(posix_file_system(), folder, info, tokens_per_shard);
  for (int d = 0; d < count; ++d) {
    std::vector<int32_t> tokens(d % 37, 1 + d % 998);
    tokens.push_back(0);
    EXPECT_TRUE(
        writer.append(tokens, 10 + d, d % 2 == 0 ? "even" : "odd", "doc" + std::to_string(d)).ok());
  }
  EXPECT_TRUE(writer.finish().ok());
  return folder;
}

TEST(Order, IsAPermutation) {
  for (const int64_t size : {1, 2, 3, 5, 64, 1000, 4097}) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < size; ++i) seen.insert(permuted(i, size, 77));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Order, EpochsDifferAndCoverEverything) {
  std::vector<int64_t> first, second;
  for (int64_t i = 0; i < 100; ++i) {
    first.push_back(chunk_at(i, 100, Order::kOurs, 5));
    second.push_back(chunk_at(100 + i, 100, Order::kOurs, 5));
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()),
            std::set<int64_t>(second.begin(), second.end()));
  EXPECT_EQ(chunk_at(103, 100, Order::kSequential, 5), 3);
}

TEST(Loader, EveryTokenOfEveryChunkOnceAnEpoch) {
  const std::string folder = write_documents(200, 700);
  const auto chunks = rows_of_folder(folder, 16);
  ASSERT_TRUE(chunks.ok()) << chunks.status();
  LoaderOptions options;
  options.sequence_length = 16;
  std::multiset<std::vector<int32_t>> loaded, stored;
  for (int64_t c = 0; c < (*chunks)->num_chunks(); ++c) {
    const auto batch = load(**chunks, options, {c, c + 1});
    ASSERT_TRUE(batch.ok());
    loaded.insert(batch->tokens);
    std::vector<int32_t> tokens(16), ends;
    std::vector<SpanSource> sources;
    ASSERT_TRUE((*chunks)->read(c, tokens.data(), &ends, &sources).ok());
    stored.insert(tokens);
  }
  EXPECT_EQ(loaded, stored);
}

// Documents of 5, 3, 9 and 20 tokens, of which 2, 0, 7 and 6 are given, in rows of 12.
TEST(Loader, WholeDocumentsPredictOnlyWhatIsNotGiven) {
  const std::string folder = testing::TempDir() + "whole";
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(posix_file_system().make_directories(folder).ok());
  DatasetInfo info;
  info.vocab_size = 100;
  info.eos_id = 0;
  ShardWriter writer(posix_file_system(), folder, info, 1 << 20);
  int32_t next = 1;
  for (const auto& [length, given] : {std::pair{5, 2}, {3, 0}, {9, 7}, {20, 6}}) {
    std::vector<int32_t> tokens(length, 0);
    for (int i = 0; i + 1 < length; ++i) tokens[i] = next++;
    ASSERT_TRUE(writer.append(tokens, 1, "tasks", "id", given).ok());
  }
  ASSERT_TRUE(writer.finish().ok());
  const auto chunks = rows_of_folder(folder, 12, DocumentPacking::kWhole);
  ASSERT_TRUE(chunks.ok()) << chunks.status();
  LoaderOptions options;
  options.sequence_length = 12;
  options.order = Order::kSequential;
  options.filter = InstanceFilter();  // filling is no repetition
  const auto batch = load(**chunks, options, {0, (*chunks)->num_chunks()});
  ASSERT_TRUE(batch.ok()) << batch.status();
  constexpr int32_t no = kIgnoredLabel;
  EXPECT_EQ(batch->tokens, (std::vector<int32_t>{1,  2,  3,  4,  0,  5,  6,  0,  0,  0,  0,  0,  //
                                                 7,  8,  9,  10, 11, 12, 13, 14, 0,  0,  0,  0,  //
                                                 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 0}));
  EXPECT_EQ(batch->labels, (std::vector<int32_t>{no, 3,  4,  0,  5,  6,  0,  no, no, no, no, no,  //
                                                 no, no, no, no, no, no, 14, 0,  no, no, no, no,  //
                                                 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 0,  no}));
  EXPECT_EQ(batch->document_ends, (std::vector<int32_t>{5, 8, 12, 21, 24, 36}));
  EXPECT_EQ(batch->filtered, (std::vector<uint8_t>{0, 0, 0}));
  // Cut, the third document goes on in the second row with what is left of its question.
  const auto cut = rows_of_folder(folder, 12);
  const auto rows = load(**cut, options, {0, 3});
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(std::vector<int32_t>(rows->labels.begin() + 7, rows->labels.begin() + 17),
            (std::vector<int32_t>{no, no, no, no, no, no, no, 14, 0, no}));
}

TEST(Loader, SpansEndBehindTheEndTokenAndAtRowEnds) {
  const std::string folder = write_documents(120, 1 << 20);
  const auto chunks = rows_of_folder(folder, 32);
  LoaderOptions options;
  options.sequence_length = 32;
  const auto batch = load(**chunks, options, {0, 12});
  ASSERT_TRUE(batch.ok());
  std::set<int32_t> expected;  // by looking at every token
  for (int32_t t = 0; t < 12 * 32; ++t) {
    if (batch->tokens[t] == 0 || (t + 1) % 32 == 0) expected.insert(t + 1);
  }
  EXPECT_EQ(std::vector<int32_t>(expected.begin(), expected.end()), batch->document_ends);
  EXPECT_EQ(batch->attention_ends, batch->document_ends);
  EXPECT_EQ(batch->routing_ends, batch->document_ends);
  ASSERT_EQ(batch->span_sources.size(), batch->document_ends.size());
  for (int64_t t = 0; t < 12 * 32; ++t) {
    EXPECT_EQ(batch->labels[t], (t + 1) % 32 == 0 ? kIgnoredLabel : batch->tokens[t + 1]);
  }
}

TEST(Loader, NextConventionCutsBeforeTheEndToken) {
  const std::vector<int32_t> tokens = {0, 5, 5, 0, 0, 5, 5, 0,   // row 0
                                       5, 5, 5, 5, 5, 5, 5, 5};  // row 1
  const std::vector<int32_t> documents = {1, 4, 5, 8, 16};
  EXPECT_EQ(routing_ends(documents, tokens, 8, EosRoutesWith::kPrevious, 0), documents);
  // An end token at the first position of a row is ignored; one at the last is a span of its own.
  EXPECT_EQ(routing_ends(documents, tokens, 8, EosRoutesWith::kNext, 0),
            (std::vector<int32_t>{3, 4, 7, 8, 16}));
}

TEST(Loader, SharesCoverTheRangeInOrder) {
  for (int64_t count = 0; count < 12; ++count) {
    for (int64_t world = 1; world < 6; ++world) {
      int64_t at = 100;
      int64_t largest = 0, smallest = 1000;
      for (int64_t rank = 0; rank < world; ++rank) {
        const SequenceRange share = share_of({100, 100 + count}, rank, world);
        EXPECT_EQ(share.begin, at);
        at = share.end;
        largest = std::max(largest, share.end - share.begin);
        smallest = std::min(smallest, share.end - share.begin);
      }
      EXPECT_EQ(at, 100 + count);
      EXPECT_LE(largest - smallest, 1);
    }
  }
}

TEST(Loader, RanksTogetherSeeWhatOneRankSees) {
  const std::string folder = write_documents(150, 900);
  const auto chunks = rows_of_folder(folder, 16);
  LoaderOptions options;
  options.sequence_length = 16;
  options.seed = 9;
  const auto whole = load(**chunks, options, {40, 47});
  std::vector<int32_t> tokens;
  std::vector<int64_t> numbers;
  for (int64_t rank = 0; rank < 3; ++rank) {
    const auto part = load(**chunks, options, share_of({40, 47}, rank, 3));
    tokens.insert(tokens.end(), part->tokens.begin(), part->tokens.end());
    numbers.insert(numbers.end(), part->sequence_index.begin(), part->sequence_index.end());
  }
  EXPECT_EQ(tokens, whole->tokens);
  EXPECT_EQ(numbers, whole->sequence_index);
}

// The reference's ranks take columns (emo-facts 3.5): every world-th row.
TEST(Loader, ColumnsCoverTheRangeToo) {
  for (int64_t count = 0; count < 12; ++count) {
    for (int64_t world = 1; world < 6; ++world) {
      std::set<int64_t> seen;
      for (int64_t rank = 0; rank < world; ++rank) {
        const SequenceRange column = column_of({100, 100 + count}, rank, world);
        for (int64_t i = 0; i < column.size(); ++i) {
          EXPECT_EQ((column[i] - 100) % world, rank);
          EXPECT_TRUE(seen.insert(column[i]).second);
        }
        // Slices of a column are consecutive in it.
        std::vector<int64_t> sliced;
        for (int64_t slice = 0; slice < 3; ++slice) {
          const SequenceRange part = share_of(column, slice, 3);
          for (int64_t i = 0; i < part.size(); ++i) sliced.push_back(part[i]);
        }
        ASSERT_EQ(static_cast<int64_t>(sliced.size()), column.size());
        for (int64_t i = 0; i < column.size(); ++i) EXPECT_EQ(sliced[i], column[i]);
      }
      EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
      EXPECT_TRUE(seen.empty() || (*seen.begin() == 100 && *seen.rbegin() == 99 + count));
    }
  }
}

TEST(Loader, FilteredRowsLoseLabelsOnly) {
  SyntheticOptions synthetic;
  synthetic.vocab_size = 3;  // two words: short patterns repeat
  synthetic.topics = 1;
  synthetic.min_length = synthetic.max_length = 400;
  const SyntheticChunks chunks(synthetic, 512);
  LoaderOptions options;
  options.sequence_length = 512;
  options.filter = InstanceFilter{1, 13, 4};
  const auto batch = load(chunks, options, {0, 8});
  int64_t filtered = 0;
  for (int64_t row = 0; row < 8; ++row) {
    const bool repetitive = is_repetitive(batch->tokens.data() + row * 512, 512, *options.filter);
    EXPECT_EQ(batch->filtered[row] != 0, repetitive);
    filtered += repetitive ? 1 : 0;
    EXPECT_EQ(batch->labels[row * 512] == kIgnoredLabel, repetitive);
  }
  EXPECT_GT(filtered, 0);
}

// The reference's definition, by its words: some pattern of 1 to 13 tokens stands 32 times in a
// row.
TEST(InstanceFilter, CountsRepeatsAsTheReference) {
  const auto repeated = [](int64_t period, int64_t count, int64_t before, int64_t length) {
    std::vector<int32_t> tokens(length);
    for (int64_t i = 0; i < length; ++i) tokens[i] = static_cast<int32_t>(1000 + i);
    for (int64_t i = 0; i < period * count; ++i)
      tokens[before + i] = static_cast<int32_t>(i % period);
    return tokens;
  };
  const auto hit = [](const std::vector<int32_t>& tokens) {
    return is_repetitive(tokens.data(), static_cast<int64_t>(tokens.size()), InstanceFilter());
  };
  EXPECT_FALSE(hit(repeated(1, 31, 7, 4096)));
  EXPECT_TRUE(hit(repeated(1, 32, 7, 4096)));
  EXPECT_TRUE(hit(repeated(1, 32, 0, 4096)));
  EXPECT_TRUE(hit(repeated(1, 32, 4064, 4096)));  // at the very end
  for (int64_t offset = 0; offset < 13; ++offset) {
    EXPECT_TRUE(hit(repeated(13, 32, 100 + offset, 4096)));
    EXPECT_FALSE(hit(repeated(13, 31, 100 + offset, 4096)));
  }
  EXPECT_FALSE(hit(repeated(14, 40, 5, 4096)));
}

TEST(Synthetic, IsAFunctionOfSeedAndChunk) {
  SyntheticOptions options;
  const SyntheticChunks a(options, 256), b(options, 256);
  options.seed = 1;
  const SyntheticChunks other(options, 256);
  std::vector<int32_t> first(256), again(256), different(256), ends;
  std::vector<SpanSource> sources;
  ASSERT_TRUE(a.read(41, first.data(), &ends, &sources).ok());
  EXPECT_EQ(ends.back(), 256);
  ASSERT_TRUE(b.read(41, again.data(), &ends, &sources).ok());
  ASSERT_TRUE(other.read(41, different.data(), &ends, &sources).ok());
  EXPECT_EQ(first, again);
  EXPECT_NE(first, different);
  for (const int32_t token : first) EXPECT_TRUE(token >= 0 && token < 256);
}

class DamagedShards : public ::testing::Test {
 protected:
  std::string folder_ = write_documents(100, 1 << 20);
  void resize(const std::string& name, int64_t change) {
    const std::string path = folder_ + "/" + name;
    std::filesystem::resize_file(path, std::filesystem::file_size(path) + change);
  }
  std::string error() { return std::string(TokenDataset::open(folder_).status().message()); }
};

TEST_F(DamagedShards, TruncatedTokensAreRefused) {
  resize("tokens-00000.npy", -2);
  EXPECT_NE(error().find("tokens-00000.npy"), std::string::npos) << error();
}
TEST_F(DamagedShards, TruncatedIndexIsRefused) {
  resize("tokens-00000.index", -1);
  EXPECT_NE(error().find("tokens-00000.index"), std::string::npos) << error();
}
TEST_F(DamagedShards, MissingDatasetJsonIsNotADataset) {
  std::filesystem::remove(folder_ + "/dataset.json");
  EXPECT_EQ(TokenDataset::open(folder_).status().code(), absl::StatusCode::kNotFound);
}
TEST_F(DamagedShards, TokensBeyondTheVocabularyAreNamed) {
  std::fstream file(folder_ + "/tokens-00000.npy", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(2 * 50);
  const uint16_t bad = 60000;
  file.write(reinterpret_cast<const char*>(&bad), 2);
  file.close();
  const auto dataset = TokenDataset::open(folder_);
  ASSERT_TRUE(dataset.ok());
  std::vector<int32_t> tokens(64);
  const absl::Status status = dataset->read(0, 0, 64, tokens.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("60000 at offset 50"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find("(document 9)"), absl::string_view::npos) << status;
}

// As the header says it, position by position.
bool slowly_repetitive(const std::vector<int32_t>& tokens, const InstanceFilter& filter) {
  const auto count = static_cast<int64_t>(tokens.size());
  for (int64_t period = filter.min_period; period <= std::min(filter.max_period, count / 3);
       ++period) {
    int64_t run = 0;
    for (int64_t i = period; i < count; ++i) {
      run = tokens[i] == tokens[i - period] ? run + 1 : 0;
      if (run >= (filter.max_count - 1) * period) return true;
    }
  }
  return false;
}

TEST(InstanceFilter, SkipsNoRun) {
  uint64_t number = 0;
  const auto draw = [&](uint64_t below) {
    return static_cast<int64_t>(random_bits(5, ++number, 0) % below);
  };
  int hits = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    const InstanceFilter filter{1 + draw(2), 2 + draw(12), 2 + draw(31)};
    std::vector<int32_t> tokens(1 + draw(300));
    for (int32_t& token : tokens) token = static_cast<int32_t>(draw(trial % 3 == 0 ? 3 : 1000));
    const auto count = static_cast<int64_t>(tokens.size());
    for (int64_t planted = draw(3); planted > 0; --planted) {  // runs near the length that counts
      const int64_t period = 1 + draw(14);
      const int64_t length = (filter.max_count - 1) * period + period - 2 + draw(5);
      const int64_t begin = draw(static_cast<uint64_t>(count));
      for (int64_t i = begin + period; i < std::min(count, begin + length); ++i) {
        tokens[i] = tokens[i - period];
      }
    }
    const bool expected = slowly_repetitive(tokens, filter);
    hits += expected ? 1 : 0;
    ASSERT_EQ(is_repetitive(tokens.data(), count, filter), expected) << trial;
  }
  EXPECT_GT(hits, 500);
  EXPECT_LT(hits, 3500);
}

}  // namespace
}  // namespace emo
