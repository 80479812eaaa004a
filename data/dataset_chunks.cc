#include "data/dataset_chunks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "data/sha256.h"

namespace emo {

DatasetChunks::DatasetChunks(TokenDataset dataset, int64_t sequence_length)
    : dataset_(std::move(dataset)), sequence_length_(sequence_length), first_chunk_{0} {
  for (int64_t shard = 0; shard < dataset_.num_shards(); ++shard) {
    first_chunk_.push_back(first_chunk_.back() + dataset_.tokens(shard) / sequence_length_);
  }
}

absl::StatusOr<std::unique_ptr<DatasetChunks>> DatasetChunks::open(const std::string& folder,
                                                                   int64_t sequence_length) {
  absl::StatusOr<TokenDataset> dataset = TokenDataset::open(folder);
  if (!dataset.ok()) return dataset.status();
  std::unique_ptr<DatasetChunks> chunks(new DatasetChunks(*std::move(dataset), sequence_length));
  if (chunks->num_chunks() == 0) {
    return absl::DataLossError(
        absl::StrCat(folder, ": no shard holds a sequence of ", sequence_length, " tokens"));
  }
  return chunks;
}

absl::Status DatasetChunks::read(int64_t chunk, int32_t* tokens,
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
    at = std::min(static_cast<int64_t>(record->end), end);
    document_ends->push_back(static_cast<int32_t>(at - begin));
    sources->push_back({static_cast<int32_t>(record->source), record - first, shard});
  }
  return absl::OkStatus();
}

std::string DatasetChunks::fingerprint() const {
  const DatasetInfo& info = dataset_.info();
  std::string text =
      absl::StrCat(info.dtype, " ", info.vocab_size, " ", info.eos_id, " ", info.tokenizer_sha256);
  for (const DatasetInfo::Shard& shard : info.shards) {
    absl::StrAppend(&text, " ", shard.tokens, " ", shard.documents, " ", shard.sha256);
  }
  return sha256_hex(text);
}

}  // namespace emo
