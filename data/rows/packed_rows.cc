#include "data/rows/packed_rows.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr auto kCountsBytes = static_cast<int64_t>(sizeof(PackingCounts));

// A set of numbers in [0, size) that finds the least one not below another, by a tree of bits.
class NumberSet {
 public:
  explicit NumberSet(int64_t size) {
    do {
      size = (size + 63) / 64;
      levels_.emplace_back(static_cast<size_t>(size), 0);
    } while (size > 1);
  }
  void insert(int64_t number) {
    for (std::vector<uint64_t>& level : levels_) {
      level[number / 64] |= uint64_t{1} << (number % 64);
      number /= 64;
    }
  }
  void erase(int64_t number) {
    for (std::vector<uint64_t>& level : levels_) {
      level[number / 64] &= ~(uint64_t{1} << (number % 64));
      if (level[number / 64] != 0) return;
      number /= 64;
    }
  }
  // -1 where there is none. REQUIRES: 0 <= number < size.
  int64_t at_least(int64_t number) const {
    for (size_t up = 0; up < levels_.size(); ++up) {
      const std::vector<uint64_t>& level = levels_[up];
      const int64_t word = number / 64;
      if (word >= static_cast<int64_t>(level.size())) return -1;
      const uint64_t above = level[word] >> (number % 64);
      if (above == 0) {
        number = word + 1;
        continue;
      }
      number += std::countr_zero(above);
      for (size_t down = up; down-- > 0;) {
        number = number * 64 + std::countr_zero(levels_[down][number]);
      }
      return number;
    }
    return -1;
  }

 private:
  std::vector<std::vector<uint64_t>> levels_;
};

// The parts of each document that are to be packed, in order.
class Parts {
 public:
  Parts(DocumentPacking packing, int64_t S) : packing_(packing), S_(S) {}

  void add(const StoredDocument& document) {
    ++counts.documents;
    if (document.length() > S_) ++counts.cut_documents;
    if (packing_ == DocumentPacking::kWhole) {
      const int64_t from = std::max(document.begin, document.end - S_);
      counts.dropped += from - document.begin;
      add_part(document, from, document.end);
      return;
    }
    for (int64_t at = document.begin; at < document.end; at += S_) {
      add_part(document, at, std::min(at + S_, document.end));
    }
  }

  std::vector<DocumentPart> parts;
  PackingCounts counts;

 private:
  void add_part(const StoredDocument& document, int64_t from, int64_t to) {
    const int64_t given = document.begin + document.context - from;
    parts.push_back({from, static_cast<int32_t>(to - from),
                     static_cast<int32_t>(std::clamp(given, int64_t{0}, to - from)),
                     static_cast<uint32_t>(document.number), document.source});
    counts.tokens += to - from;
  }
  const DocumentPacking packing_;
  const int64_t S_;
};

// [parts] The row of each, counted from 0: the next as long as it has room.
std::vector<uint32_t> rows_in_order(const std::vector<DocumentPart>& parts, int64_t S) {
  std::vector<uint32_t> rows;
  rows.reserve(parts.size());
  uint32_t row = 0;
  int64_t used = 0;
  for (const DocumentPart& part : parts) {
    if (used + part.tokens > S) {
      ++row;
      used = 0;
    }
    used += part.tokens;
    rows.push_back(row);
  }
  return rows;
}

// [parts] Their numbers, the longest first, those of one length in order.
std::vector<uint32_t> longest_first(const std::vector<DocumentPart>& parts, int64_t S) {
  std::vector<int64_t> before(static_cast<size_t>(S) + 2, 0);  // parts longer than a length
  for (const DocumentPart& part : parts) ++before[part.tokens];
  int64_t sum = 0;
  for (auto count = before.rbegin(); count != before.rend(); ++count) {
    sum += std::exchange(*count, sum);
  }
  std::vector<uint32_t> order(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    order[before[parts[i].tokens]++] = static_cast<uint32_t>(i);
  }
  return order;
}

// [parts] The row of each, in any order of rows.
std::vector<uint32_t> rows_by_best_fit(const std::vector<DocumentPart>& parts, int64_t S) {
  std::vector<uint32_t> rows(parts.size());
  NumberSet rooms(S + 1);  // that some row has left
  std::vector<std::vector<uint32_t>> with_room(static_cast<size_t>(S) + 1);  // rows, by room
  uint32_t count = 0;
  for (const uint32_t i : longest_first(parts, S)) {
    const int64_t tokens = parts[i].tokens;
    int64_t room = rooms.at_least(tokens);
    uint32_t row = count;
    if (room < 0) {
      ++count;
      room = S;
    } else {
      row = with_room[room].back();
      with_room[room].pop_back();
      if (with_room[room].empty()) rooms.erase(room);
    }
    rows[i] = row;
    if (room == tokens) continue;
    with_room[room - tokens].push_back(row);
    rooms.insert(room - tokens);
  }
  return rows;
}

// Numbers rows by the first of their parts. Answers how many there are.
int64_t number_in_order(std::vector<uint32_t>* rows) {
  constexpr uint32_t kNone = UINT32_MAX;
  std::vector<uint32_t> numbers(rows->size(), kNone);
  uint32_t next = 0;
  for (uint32_t& row : *rows) {
    if (numbers[row] == kNone) numbers[row] = next++;
    row = numbers[row];
  }
  return next;
}

template <typename Item>
absl::string_view bytes_of(const std::vector<Item>& items) {
  return {reinterpret_cast<const char*>(items.data()), items.size() * sizeof(Item)};
}

}  // namespace

const std::vector<std::string>& packing_names() {
  static const std::vector<std::string> names = {"cut", "whole", "best_fit"};
  return names;
}

std::string fingerprint_text(DocumentPacking packing) {
  switch (packing) {
    case DocumentPacking::kWhole:
      return " whole documents";
    case DocumentPacking::kBestFit:
      return " best fit";
    case DocumentPacking::kCut:
      break;
  }
  return "";
}

void PackingCounts::add(const PackingCounts& other) {
  rows += other.rows;
  tokens += other.tokens;
  filling += other.filling;
  dropped += other.dropped;
  documents += other.documents;
  cut_documents += other.cut_documents;
}

absl::StatusOr<PackingCounts> count_cut(const DocumentIndex& documents, int64_t rows, int64_t S) {
  PackingCounts counts;
  counts.rows = rows;
  counts.tokens = rows * S;
  absl::Status status =
      documents.read(0, documents.documents(), [&](const StoredDocument& document) {
        ++counts.documents;
        counts.dropped += std::max<int64_t>(0, document.end - std::max(document.begin, rows * S));
        const bool is_whole =
            document.end <= rows * S && document.begin / S == (document.end - 1) / S;
        counts.cut_documents += is_whole ? 0 : 1;
      });
  if (!status.ok()) return status;
  return counts;
}

absl::StatusOr<PackedRows> PackedRows::pack(const DocumentIndex& documents, DocumentPacking packing,
                                            int64_t S) {
  Parts parts(packing, S);
  absl::Status status = documents.read(0, documents.documents(),
                                       [&](const StoredDocument& each) { parts.add(each); });
  if (!status.ok()) return status;
  if (documents.documents() > UINT32_MAX || parts.parts.size() > UINT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat(documents.path(), ": more documents than rows can be packed of"));
  }
  std::vector<uint32_t> rows = packing == DocumentPacking::kWhole
                                   ? rows_in_order(parts.parts, S)
                                   : rows_by_best_fit(parts.parts, S);
  PackedRows packed;
  packed.counts_ = parts.counts;
  packed.counts_.rows = number_in_order(&rows);
  packed.counts_.filling = packed.counts_.rows * S - packed.counts_.tokens;
  packed.first_.assign(static_cast<size_t>(packed.counts_.rows) + 1, 0);
  for (const uint32_t row : rows) ++packed.first_[row + 1];
  for (size_t row = 1; row < packed.first_.size(); ++row) {
    packed.first_[row] += packed.first_[row - 1];
  }
  packed.parts_.resize(rows.size());
  std::vector<int64_t> next(packed.first_.begin(), packed.first_.end() - 1);
  for (size_t i = 0; i < rows.size(); ++i) packed.parts_[next[rows[i]]++] = parts.parts[i];
  return packed;
}

absl::StatusOr<PackedRows> PackedRows::find_or_pack(const std::string& path,
                                                    const DocumentIndex& documents,
                                                    DocumentPacking packing, int64_t S,
                                                    const OpenReadable& open) {
  const auto make = [&](BlockWriter* out) {
    absl::StatusOr<PackedRows> packed = pack(documents, packing, S);
    if (!packed.ok()) return packed.status();
    const std::vector<PackingCounts> counts = {packed->counts_};
    absl::Status status = out->append(bytes_of(counts));
    if (status.ok()) status = out->append(bytes_of(packed->first_));
    if (status.ok()) status = out->append(bytes_of(packed->parts_));
    return status;
  };
  absl::StatusOr<BlockFile> file = find_or_make(path, make, open);
  if (!file.ok()) return file.status();
  PackedRows rows;
  absl::Status status = file->size() < kCountsBytes
                            ? absl::DataLossError(path + ": no rows")
                            : file->read(0, kCountsBytes, reinterpret_cast<char*>(&rows.counts_));
  if (!status.ok()) return status;
  rows.file_.emplace(*std::move(file));
  return rows;
}

absl::Status PackedRows::row(int64_t row, std::vector<DocumentPart>* parts) const {
  if (!file_) {
    parts->assign(parts_.begin() + first_[row], parts_.begin() + first_[row + 1]);
    return absl::OkStatus();
  }
  int64_t range[2];
  absl::Status status =
      file_->read(kCountsBytes + row * 8, sizeof range, reinterpret_cast<char*>(range));
  if (!status.ok()) return status;
  parts->resize(static_cast<size_t>(range[1] - range[0]));
  constexpr auto kPartBytes = static_cast<int64_t>(sizeof(DocumentPart));
  return file_->read(kCountsBytes + (rows() + 1) * 8 + range[0] * kPartBytes,
                     (range[1] - range[0]) * kPartBytes, reinterpret_cast<char*>(parts->data()));
}

}  // namespace emo
