#include "data/rows/packed_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/files/file_lock.h"
#include "data/files/file_system.h"
#include "data/files/output.h"

namespace emo {
namespace {

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

struct RowMemory {
  std::vector<DocumentPart> parts;
  std::vector<int64_t> first;
};

// At the head of a file of rows; then the rows' first parts, and the parts.
struct RowsHeader {
  uint64_t magic;
  int64_t parts;
  PackingCounts counts;
};
constexpr uint64_t kRowsMagic = 0x3173776F726F6D65;  // "emorows1"

template <typename Item>
absl::string_view bytes_of(absl::Span<const Item> items) {
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
  std::vector<uint32_t> rows = packing == DocumentPacking::kWhole
                                   ? rows_in_order(parts.parts, S)
                                   : rows_by_best_fit(parts.parts, S);
  PackedRows packed;
  packed.counts_ = parts.counts;
  packed.counts_.rows = number_in_order(&rows);
  packed.counts_.filling = packed.counts_.rows * S - packed.counts_.tokens;
  const auto memory = std::make_shared<RowMemory>();
  memory->first.assign(static_cast<size_t>(packed.counts_.rows) + 1, 0);
  for (const uint32_t row : rows) ++memory->first[row + 1];
  for (size_t row = 1; row < memory->first.size(); ++row) {
    memory->first[row] += memory->first[row - 1];
  }
  memory->parts.resize(rows.size());
  std::vector<int64_t> next(memory->first.begin(), memory->first.end() - 1);
  for (size_t i = 0; i < rows.size(); ++i) memory->parts[next[rows[i]]++] = parts.parts[i];
  packed.first_ = memory->first;
  packed.parts_ = memory->parts;
  packed.memory_ = memory;
  return packed;
}

absl::Span<const DocumentPart> PackedRows::row(int64_t row) const {
  const int64_t begin = first_[row];
  const int64_t end = first_[row + 1];
  if (begin < 0 || begin >= end || end > static_cast<int64_t>(parts_.size())) return {};
  return parts_.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

absl::Status PackedRows::write(const std::string& path) const {
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      create_output(posix_file_system(), path, Writing::kStreamed);
  if (!file.ok()) return file.status();
  const RowsHeader header{kRowsMagic, static_cast<int64_t>(parts_.size()), counts_};
  for (const absl::string_view bytes :
       {bytes_of(absl::Span<const RowsHeader>(&header, 1)), bytes_of(first_), bytes_of(parts_)}) {
    absl::Status status = (*file)->append(bytes);
    if (!status.ok()) return status;
  }
  return (*file)->close();
}

absl::StatusOr<PackedRows> PackedRows::read(const std::string& path) {
  absl::StatusOr<MappedFile> opened = MappedFile::open(path);
  if (!opened.ok()) return opened.status();
  const auto file = std::make_shared<MappedFile>(*std::move(opened));
  const absl::string_view bytes = file->bytes();
  RowsHeader header{};
  if (bytes.size() >= sizeof header) std::memcpy(&header, bytes.data(), sizeof header);
  const auto parts = static_cast<uint64_t>(header.parts);
  const auto ends = static_cast<uint64_t>(header.counts.rows) + 1;
  const bool fits =
      header.magic == kRowsMagic && header.parts >= 0 && header.counts.rows >= 0 &&
      parts <= bytes.size() && ends <= bytes.size() &&
      bytes.size() == sizeof header + ends * sizeof(int64_t) + parts * sizeof(DocumentPart);
  if (!fits) {
    return absl::DataLossError(absl::StrCat(path, ": ", bytes.size(),
                                            " bytes; truncated? Remove it, and it is made anew"));
  }
  PackedRows rows;
  const char* at = bytes.data() + sizeof header;
  rows.first_ = {reinterpret_cast<const int64_t*>(at), ends};
  rows.parts_ = {reinterpret_cast<const DocumentPart*>(at + ends * sizeof(int64_t)), parts};
  rows.memory_ = file;
  rows.counts_ = header.counts;
  return rows;
}

absl::StatusOr<PackedRows> PackedRows::find_or_pack(const std::string& path,
                                                    const DocumentIndex& documents,
                                                    DocumentPacking packing, int64_t S) {
  if (path_exists(path)) return read(path);
  absl::Status status = posix_file_system().make_directories(parent_folder(path));
  if (!status.ok()) return status;
  absl::StatusOr<FileLock> lock = FileLock::take(path + ".lock", FileLock::Held::kWait);
  if (!lock.ok()) return lock.status();
  if (!path_exists(path)) {  // of many ranks one packs
    absl::StatusOr<PackedRows> packed = pack(documents, packing, S);
    if (!packed.ok()) return packed.status();
    status = packed->write(path);
    if (!status.ok()) return status;
  }
  return read(path);
}

}  // namespace emo
