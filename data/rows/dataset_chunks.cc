#include "data/rows/dataset_chunks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "data/files/sha256.h"

namespace emo {

namespace {

// Tokens before a document in its shard.
int64_t begin_of(const DocumentRecord* index, int64_t document) {
  return document == 0 ? 0 : static_cast<int64_t>(index[document - 1].end);
}

}  // namespace

DatasetChunks::DatasetChunks(TokenDataset dataset, int64_t sequence_length, DocumentPacking packing)
    : dataset_(std::move(dataset)),
      sequence_length_(sequence_length),
      packing_(packing),
      first_chunk_{0} {
  if (packing == DocumentPacking::kWhole) pack_whole();
  for (int64_t shard = 0; shard < dataset_.num_shards(); ++shard) {
    first_chunk_.push_back(first_chunk_.back() + dataset_.tokens(shard) / sequence_length_);
  }
}

void DatasetChunks::pack_whole() {
  for (int64_t shard = 0; shard < dataset_.num_shards(); ++shard) {
    const DocumentRecord* index = dataset_.index(shard);
    int64_t used = sequence_length_;  // of the last chunk
    for (int64_t d = 0; d < dataset_.documents(shard); ++d) {
      const int64_t length = static_cast<int64_t>(index[d].end) - begin_of(index, d);
      if (used + length > sequence_length_) {
        whole_.push_back({shard, d, d});
        used = 0;
      }
      whole_.back().end = d + 1;
      used += length;
    }
  }
}

int64_t DatasetChunks::num_chunks() const {
  return packing_ == DocumentPacking::kCut ? first_chunk_.back()
                                           : static_cast<int64_t>(whole_.size());
}

absl::StatusOr<std::unique_ptr<DatasetChunks>> DatasetChunks::open(const std::string& folder,
                                                                   int64_t sequence_length,
                                                                   DocumentPacking packing) {
  absl::StatusOr<TokenDataset> dataset = TokenDataset::open(folder);
  if (!dataset.ok()) return dataset.status();
  std::unique_ptr<DatasetChunks> chunks(
      new DatasetChunks(*std::move(dataset), sequence_length, packing));
  if (chunks->num_chunks() == 0) {
    return absl::DataLossError(
        absl::StrCat(folder, ": no shard holds a sequence of ", sequence_length, " tokens"));
  }
  return chunks;
}

absl::Status DatasetChunks::read(int64_t chunk, int32_t* tokens,
                                 std::vector<int32_t>* document_ends,
                                 std::vector<SpanSource>* sources) const {
  return packing_ == DocumentPacking::kCut
             ? read_cut(chunk, tokens, document_ends, sources)
             : read_whole(whole_[chunk], tokens, document_ends, sources);
}

absl::Status DatasetChunks::read_cut(int64_t chunk, int32_t* tokens,
                                     std::vector<int32_t>* document_ends,
                                     std::vector<SpanSource>* sources) const {
  const auto above = std::upper_bound(first_chunk_.begin(), first_chunk_.end(), chunk);
  const int64_t shard = above - first_chunk_.begin() - 1;
  const int64_t begin = (chunk - first_chunk_[shard]) * sequence_length_;
  const int64_t end = begin + sequence_length_;
  absl::Status status = dataset_.read(shard, begin, sequence_length_, tokens);
  if (!status.ok()) return status;
  const DocumentRecord* first = dataset_.index(shard);
  const DocumentRecord* record = std::upper_bound(
      first, first + dataset_.documents(shard), static_cast<uint64_t>(begin),
      [](uint64_t at, const DocumentRecord& candidate) { return at < candidate.end; });
  for (int64_t at = begin; at < end; ++record) {
    const int64_t from = at;
    at = std::min(static_cast<int64_t>(record->end), end);
    const int64_t given_to = begin_of(first, record - first) + record->context;
    document_ends->push_back(static_cast<int32_t>(at - begin));
    sources->push_back({static_cast<int32_t>(record->source), record - first, shard,
                        std::clamp(given_to - from, int64_t{0}, at - from)});
  }
  return absl::OkStatus();
}

absl::Status DatasetChunks::read_whole(const WholeChunk& chunk, int32_t* tokens,
                                       std::vector<int32_t>* document_ends,
                                       std::vector<SpanSource>* sources) const {
  const DocumentRecord* index = dataset_.index(chunk.shard);
  int64_t at = 0;
  for (int64_t d = chunk.first; d < chunk.end; ++d) {
    const auto end = static_cast<int64_t>(index[d].end);
    const int64_t begin = begin_of(index, d);
    const int64_t from = std::max(begin, end - sequence_length_);
    absl::Status status = dataset_.read(chunk.shard, from, end - from, tokens + at);
    if (!status.ok()) return status;
    at += end - from;
    document_ends->push_back(static_cast<int32_t>(at));
    sources->push_back({static_cast<int32_t>(index[d].source), d, chunk.shard,
                        std::max<int64_t>(0, begin + index[d].context - from)});
  }
  if (at == sequence_length_) return absl::OkStatus();
  std::fill(tokens + at, tokens + sequence_length_, eos_id());
  document_ends->push_back(static_cast<int32_t>(sequence_length_));
  sources->push_back({0, -1, -1, sequence_length_ - at});
  return absl::OkStatus();
}

std::string DatasetChunks::fingerprint() const {
  const std::string& meaning = dataset_.info().tokenizer.meaning;
  return meaning.empty() ? fingerprint_with(dataset_.info().tokenizer.bytes)
                         : "v2:" + fingerprint_with(meaning);
}

bool DatasetChunks::matches(const std::string& fingerprint) const {
  // Version 0.1.0 knew tokenizers by the bytes of their files.
  return fingerprint == this->fingerprint() ||
         fingerprint == fingerprint_with(dataset_.info().tokenizer.bytes);
}

std::string DatasetChunks::fingerprint_with(const std::string& tokenizer) const {
  const DatasetInfo& info = dataset_.info();
  std::string text =
      absl::StrCat(info.dtype, " ", info.vocab_size, " ", info.eos_id, " ", tokenizer);
  for (const DatasetInfo::Shard& shard : info.shards) {
    absl::StrAppend(&text, " ", shard.tokens, " ", shard.documents, " ", shard.sha256);
  }
  if (packing_ == DocumentPacking::kWhole) text += " whole documents";
  return sha256_hex(text);
}

}  // namespace emo
