#include "data/rows/packed_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <set>

#include "data/files/file_system.h"
#include "data/order/random_bits.h"
#include "tests/data/files/memory_file.h"

namespace emo {
namespace {

DocumentIndex index_of(const std::vector<int64_t>& lengths) {
  std::string bytes;
  uint64_t end = 0;
  for (const int64_t length : lengths) {
    end += static_cast<uint64_t>(length);
    bytes.append(reinterpret_cast<const char*>(&end), sizeof end);
  }
  return DocumentIndex::open(std::make_unique<MemoryFile>(bytes),
                             {DocumentIndex::Records::kEnds, 0,
                              static_cast<int64_t>(lengths.size()), static_cast<int64_t>(end), 1})
      .value();
}

std::vector<DocumentPart> row_of(const PackedRows& packed, int64_t row) {
  std::vector<DocumentPart> parts;
  EXPECT_TRUE(packed.row(row, &parts).ok());
  return parts;
}

std::vector<int64_t> drawn_lengths(int count, int64_t longest, uint64_t seed) {
  std::vector<int64_t> lengths;
  for (int i = 0; i < count; ++i) {
    const uint64_t bits = random_bits(seed, static_cast<uint64_t>(i), 0);
    lengths.push_back(1 +
                      static_cast<int64_t>(random_below(
                          bits, static_cast<uint64_t>(i % 7 == 0 ? longest : longest / 8 + 1))));
  }
  return lengths;
}

// Best fit as its definition says it: for each part, from the longest on, a walk through all rows.
std::vector<std::multiset<int64_t>> slow_best_fit(const std::vector<int64_t>& lengths, int64_t S) {
  std::vector<int64_t> parts;
  for (int64_t length : lengths) {
    for (; length > S; length -= S) parts.push_back(S);
    parts.push_back(length);
  }
  std::sort(parts.rbegin(), parts.rend());
  std::vector<int64_t> rooms;
  std::vector<std::multiset<int64_t>> rows;
  for (const int64_t part : parts) {
    int64_t best = -1;
    for (int64_t row = 0; row < static_cast<int64_t>(rooms.size()); ++row) {
      if (rooms[row] >= part && (best < 0 || rooms[row] < rooms[best])) best = row;
    }
    if (best < 0) {
      best = static_cast<int64_t>(rooms.size());
      rooms.push_back(S);
      rows.emplace_back();
    }
    rooms[best] -= part;
    rows[best].insert(part);
  }
  return rows;
}

TEST(BestFit, LeavesTheRoomsThatItsDefinitionLeaves) {
  for (const int64_t S : {1, 2, 7, 64, 100, 4096}) {
    for (uint64_t seed = 0; seed < 12; ++seed) {
      const std::vector<int64_t> lengths = drawn_lengths(400, S * 2 + 3, seed);
      const auto packed = PackedRows::pack(index_of(lengths), DocumentPacking::kBestFit, S);
      ASSERT_TRUE(packed.ok()) << packed.status();
      std::multiset<int64_t> rooms, expected;
      for (int64_t row = 0; row < packed->rows(); ++row) {
        int64_t room = S;
        for (const DocumentPart& part : row_of(*packed, row)) room -= part.tokens;
        EXPECT_GE(room, 0);
        rooms.insert(room);
      }
      for (const auto& row : slow_best_fit(lengths, S)) {
        expected.insert(S - std::accumulate(row.begin(), row.end(), int64_t{0}));
      }
      EXPECT_EQ(rooms, expected) << "S " << S << " seed " << seed;
    }
  }
}

TEST(BestFit, HoldsEveryTokenOnceAndCutsNoDocumentThatFits) {
  constexpr int64_t S = 100;
  const std::vector<int64_t> lengths = drawn_lengths(3000, 450, 5);
  const auto packed = PackedRows::pack(index_of(lengths), DocumentPacking::kBestFit, S).value();
  std::map<uint32_t, std::vector<std::pair<int64_t, int64_t>>> parts;  // by document
  int64_t first_of_last_row = -1;
  for (int64_t row = 0; row < packed.rows(); ++row) {
    int64_t at = -1;
    for (const DocumentPart& part : row_of(packed, row)) {
      EXPECT_GT(part.first_token, at);  // in order of the file
      at = part.first_token;
      parts[part.document].emplace_back(part.first_token, part.first_token + part.tokens);
    }
    EXPECT_GT(row_of(packed, row).front().first_token, first_of_last_row);
    first_of_last_row = row_of(packed, row).front().first_token;
  }
  int64_t begin = 0, cut = 0;
  for (uint32_t d = 0; d < lengths.size(); ++d) {
    std::vector<std::pair<int64_t, int64_t>>& of = parts[d];
    std::sort(of.begin(), of.end());
    EXPECT_EQ(static_cast<int64_t>(of.size()), (lengths[d] + S - 1) / S);
    cut += of.size() > 1 ? 1 : 0;
    for (const auto& [from, to] : of) {
      EXPECT_EQ(from, begin);
      begin = to;
    }
  }
  EXPECT_EQ(packed.counts().documents, 3000);
  EXPECT_EQ(packed.counts().cut_documents, cut);
  EXPECT_EQ(packed.counts().tokens, begin);
  EXPECT_EQ(packed.counts().dropped, 0);
  EXPECT_EQ(packed.counts().filling, packed.rows() * S - begin);
  EXPECT_LT(packed.counts().filling, begin / 100);
}

TEST(WholeDocuments, GoOneAfterAnotherAndKeepTheirEnds) {
  const auto packed =
      PackedRows::pack(index_of({5, 3, 9, 20, 1}), DocumentPacking::kWhole, 12).value();
  std::vector<std::vector<std::pair<int64_t, int32_t>>> rows;
  for (int64_t row = 0; row < packed.rows(); ++row) {
    rows.emplace_back();
    for (const DocumentPart& part : row_of(packed, row)) {
      rows.back().emplace_back(part.first_token, part.tokens);
    }
  }
  using Row = std::vector<std::pair<int64_t, int32_t>>;
  EXPECT_EQ(rows, (std::vector<Row>{{{0, 5}, {5, 3}}, {{8, 9}}, {{25, 12}}, {{37, 1}}}));
  EXPECT_EQ(packed.counts().dropped, 8);
  EXPECT_EQ(packed.counts().cut_documents, 1);
}

TEST(PackedRows, AreKeptInAFileThatLaterRunsFind) {
  const std::string folder = ::testing::TempDir() + "/emo_packed_rows";
  std::filesystem::remove_all(folder);
  const std::string path = folder + "/rows/file.rows";
  const DocumentIndex documents = index_of(drawn_lengths(5000, 450, 5));
  const auto find = [&] {
    return PackedRows::find_or_pack(path, documents, DocumentPacking::kBestFit, 100);
  };
  const auto packed = PackedRows::pack(documents, DocumentPacking::kBestFit, 100).value();
  const auto kept = find();
  ASSERT_TRUE(kept.ok()) << kept.status();
  const auto made = std::filesystem::last_write_time(path);
  const auto found = find();
  EXPECT_EQ(std::filesystem::last_write_time(path), made);
  ASSERT_EQ(found->rows(), packed.rows());
  EXPECT_EQ(found->counts().filling, packed.counts().filling);
  for (int64_t row = 0; row < packed.rows(); ++row) {
    EXPECT_EQ(row_of(*found, row), row_of(packed, row));
  }
  // Any byte changed: rows as before, or an error.
  const std::string bytes = read_file(path, 1 << 24).value();
  int64_t refused = 0;
  for (uint64_t trial = 0; trial < 200; ++trial) {
    std::string other = bytes;
    other[random_below(random_bits(9, trial, 0), bytes.size())] ^=
        static_cast<char>(1 << trial % 8);
    std::ofstream(path, std::ios::binary) << other;
    const auto damaged = find();
    if (!damaged.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(damaged.status()));
      ++refused;
      continue;
    }
    for (int64_t row = 0; row < packed.rows(); ++row) {
      std::vector<DocumentPart> parts;
      const absl::Status status = damaged->row(row, &parts);
      refused += status.ok() ? 0 : 1;
      ASSERT_TRUE(!status.ok() || parts == row_of(packed, row));
    }
  }
  EXPECT_GT(refused, 200);
  for (const size_t size : {size_t{0}, size_t{70}, size_t{4000}}) {
    std::filesystem::resize_file(path, size);
    EXPECT_TRUE(absl::IsDataLoss(find().status())) << size;
  }
}

// Of rows of 10 out of documents of 4, 6, 7, 20 and 5 tokens, where 2 rows' worth is left out.
TEST(CutDocuments, AreCounted) {
  const auto counts = count_cut(index_of({4, 6, 7, 20, 5}), 4, 10);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->documents, 5);
  EXPECT_EQ(counts->cut_documents, 2);  // the fourth, and the last, of which 2 tokens are left out
  EXPECT_EQ(counts->dropped, 2);
}

}  // namespace
}  // namespace emo
