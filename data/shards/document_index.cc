#include "data/shards/document_index.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr int64_t kBlock = 170;  // documents that find() reads at a time: a page of records
constexpr int64_t kScanBlock = 1 << 15;
constexpr int kGuesses = 6;  // by proportion; then halves, which no lengths can make slow

int64_t record_bytes(DocumentIndex::Records records) {
  return records == DocumentIndex::Records::kWhole ? sizeof(DocumentRecord) : sizeof(uint64_t);
}

}  // namespace

absl::Status DocumentIndex::damaged(int64_t document) const {
  return absl::DataLossError(
      absl::StrCat(path(), ": record of document ", document, " is damaged"));
}

absl::StatusOr<DocumentIndex> DocumentIndex::open(std::unique_ptr<ReadableFile> file,
                                                  const Options& options) {
  const int64_t bytes = record_bytes(options.records);
  const int64_t room = (file->size() - options.first_byte) / bytes;
  if (options.documents < 0 || options.documents > room || file->size() < options.first_byte) {
    return absl::DataLossError(absl::StrCat(file->path(), ": ", file->size(),
                                            " bytes have no room for ", options.documents,
                                            " documents; truncated?"));
  }
  DocumentIndex index(std::move(file), options);
  if (options.documents == 0 && options.tokens > 0) {
    return absl::DataLossError(
        absl::StrCat(index.path(), ": no document, and ", options.tokens, " tokens"));
  }
  if (options.documents == 0) return index;
  uint64_t end = 0;
  absl::Status status = index.file_->read(options.first_byte + (options.documents - 1) * bytes,
                                          sizeof end, reinterpret_cast<char*>(&end));
  if (!status.ok()) return status;
  if (end != static_cast<uint64_t>(options.tokens)) {
    return absl::DataLossError(
        absl::StrCat(index.path(), ": documents end at token ", end, " of ", options.tokens));
  }
  return index;
}

absl::StatusOr<std::string> DocumentIndex::sample() const {
  const int64_t size = record_bytes(options_.records);
  const int64_t count = std::min(kBlock, options_.documents);
  std::string all;
  for (const int64_t first :
       {int64_t{0}, (options_.documents - count) / 2, options_.documents - count}) {
    std::string bytes(static_cast<size_t>(count * size), '\0');
    absl::Status status =
        file_->read(options_.first_byte + first * size, count * size, bytes.data());
    if (!status.ok()) return status;
    all += bytes;
  }
  return all;
}

absl::Status DocumentIndex::read_block(int64_t first, int64_t count,
                                       std::vector<StoredDocument>* documents) const {
  documents->clear();
  if (count == 0) return absl::OkStatus();
  const int64_t size = record_bytes(options_.records);
  const int64_t before = first > 0 ? 1 : 0;  // the record that says where the first begins
  thread_local std::string bytes;
  bytes.resize(static_cast<size_t>((count + before) * size));
  absl::Status status = file_->read(options_.first_byte + (first - before) * size,
                                    static_cast<int64_t>(bytes.size()), bytes.data());
  if (!status.ok()) return status;
  uint64_t begin = 0;
  for (int64_t i = 0; i < count + before; ++i) {
    DocumentRecord record{};
    std::memcpy(&record, bytes.data() + i * size, static_cast<size_t>(size));
    const int64_t number = first - before + i;
    const bool is_before = i < before;
    if (!is_before && (record.end <= begin || record.source >= options_.sources ||
                       record.context >= record.end - begin)) {
      return damaged(number);
    }
    if (record.end > static_cast<uint64_t>(options_.tokens)) return damaged(number);
    if (!is_before) {
      documents->push_back({number, static_cast<int64_t>(begin), static_cast<int64_t>(record.end),
                            record.bytes, record.source, record.context});
    }
    begin = record.end;
  }
  return absl::OkStatus();
}

// Documents are about as long one as another, so the place of a token says nearly which one it is
// in; each block that does not hold it bounds the next guess.
absl::Status DocumentIndex::find_block(int64_t token, std::vector<StoredDocument>* block) const {
  int64_t low = 0, high = options_.documents;  // it is one of [low, high),
  int64_t begin = 0, end = options_.tokens;    // which hold tokens [begin, end)
  for (int guesses = 0; low < high; ++guesses) {
    const double share = guesses < kGuesses
                             ? static_cast<double>(token - begin) / static_cast<double>(end - begin)
                             : 0.5;
    const auto guess = low + static_cast<int64_t>(share * static_cast<double>(high - low));
    const int64_t first = std::clamp(guess - kBlock / 2, low, std::max(low, high - kBlock));
    absl::Status status = read_block(first, std::min(kBlock, high - first), block);
    if (!status.ok()) return status;
    const StoredDocument& front = block->front();
    const StoredDocument& back = block->back();
    if (front.begin <= token && token < back.end) return absl::OkStatus();
    if (token < front.begin) {
      high = front.number;
      end = front.begin;
    } else {
      low = back.number + 1;
      begin = back.end;
    }
    if (token < begin || token >= end) return damaged(low);
  }
  return damaged(low);
}

absl::Status DocumentIndex::find(int64_t begin, int64_t end,
                                 std::vector<StoredDocument>* found) const {
  thread_local std::vector<StoredDocument> block;
  absl::Status status = find_block(begin, &block);
  if (!status.ok()) return status;
  const auto* document = std::upper_bound(
      block.data(), block.data() + block.size(), begin,
      [](int64_t token, const StoredDocument& candidate) { return token < candidate.end; });
  while (true) {
    for (; document < block.data() + block.size() && document->begin < end; ++document) {
      found->push_back(*document);
    }
    if (found->back().end >= end) return absl::OkStatus();
    const int64_t next = block.back().number + 1;
    if (next == options_.documents) return damaged(next - 1);
    status = read_block(next, std::min(kBlock, options_.documents - next), &block);
    if (!status.ok()) return status;
    document = block.data();
  }
}

absl::Status DocumentIndex::read(int64_t first, int64_t count,
                                 const std::function<void(const StoredDocument&)>& see) const {
  std::vector<StoredDocument> block;
  for (int64_t at = first; at < first + count; at += kScanBlock) {
    absl::Status status = read_block(at, std::min(kScanBlock, first + count - at), &block);
    if (!status.ok()) return status;
    for (const StoredDocument& document : block) see(document);
  }
  return absl::OkStatus();
}

}  // namespace emo
