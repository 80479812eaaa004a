#include "eval/document_batches.h"

#include <algorithm>

#include "data/random_bits.h"
#include "train/agreement.h"
#include "train/batch_tensors.h"

namespace emo {
namespace {

// A batch as one row, each piece a span of its own.
absl::StatusOr<Batch> load_pieces(const TokenDataset& data, const PieceBatch& pieces) {
  Batch batch;
  batch.rows = pieces.empty() ? 0 : 1;
  for (const DocumentPiece& piece : pieces) {
    const size_t at = batch.tokens.size();
    batch.tokens.resize(at + piece.length());
    absl::Status status =
        data.read(piece.shard, piece.begin, piece.length(), batch.tokens.data() + at);
    if (!status.ok()) return status;
    for (int64_t i = 0; i + 1 < piece.length(); ++i) {
      batch.labels.push_back(batch.tokens[at + i + 1]);
    }
    batch.labels.push_back(kIgnoredLabel);
    batch.document_ends.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  batch.sequence_length = std::max<int64_t>(1, static_cast<int64_t>(batch.tokens.size()));
  batch.attention_ends = batch.routing_ends = batch.document_ends;
  batch.sequence_index.assign(batch.rows, 0);
  batch.filtered.assign(batch.rows, 0);
  return batch;
}

// Positions start anew with each piece, and pool sizes belong to the document, whatever the batch.
void set_document_ids(const PieceBatch& pieces, MicroBatch* tensors) {
  auto* positions = tensors->positions.mutable_data_ptr<int32_t>();
  auto* sequence = tensors->sequence_index.mutable_data_ptr<int64_t>();
  auto* ordinal = tensors->ordinal.mutable_data_ptr<int32_t>();
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (int64_t p = 0; p < pieces[i].length(); ++p) *positions++ = static_cast<int32_t>(p);
    sequence[i] = pieces[i].number;
    ordinal[i] = pieces[i].ordinal;
  }
}

}  // namespace

std::vector<int64_t> choose_documents(const TokenDataset& data, const DocumentChoice& choice) {
  std::vector<std::pair<uint64_t, int64_t>> candidates;
  int64_t number = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (int64_t d = 0; d < data.documents(shard); ++d, ++number) {
      const auto source = static_cast<int32_t>(data.index(shard)[d].source);
      const bool candidate =
          choice.sources.empty() ||
          std::find(choice.sources.begin(), choice.sources.end(), source) != choice.sources.end();
      if (!candidate) continue;
      candidates.emplace_back(random_bits(choice.seed, 0, static_cast<uint64_t>(number)), number);
    }
  }
  std::sort(candidates.begin(), candidates.end());
  if (choice.documents > 0 && choice.documents < static_cast<int64_t>(candidates.size())) {
    candidates.resize(choice.documents);
  }
  std::vector<int64_t> documents;
  documents.reserve(candidates.size());
  for (const auto& [key, candidate] : candidates) documents.push_back(candidate);
  return documents;
}

int64_t count_documents(const TokenDataset& data) {
  int64_t documents = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) documents += data.documents(shard);
  return documents;
}

std::vector<DocumentPiece> cut_documents(const TokenDataset& data,
                                         const std::vector<int64_t>& documents, int64_t S) {
  std::vector<uint8_t> chosen(count_documents(data), 0);
  for (const int64_t number : documents) chosen[number] = 1;
  std::vector<DocumentPiece> pieces;
  int64_t number = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    int64_t begin = 0;
    for (int64_t d = 0; d < data.documents(shard); ++d, ++number) {
      const DocumentRecord& record = data.index(shard)[d];
      const auto end = static_cast<int64_t>(record.end);
      int32_t ordinal = 0;
      for (int64_t at = begin; chosen[number] != 0 && (at + 1 < end || ordinal == 0); ++ordinal) {
        const int64_t piece_end = std::min(at + S, end);
        pieces.push_back({shard, at, piece_end, number, ordinal,
                          static_cast<int32_t>(record.source), ordinal == 0 ? record.bytes : 0});
        at = piece_end - 1;
      }
      begin = end;
    }
  }
  return pieces;
}

std::vector<PieceBatch> deal_batches(const std::vector<DocumentPiece>& pieces,
                                     int64_t tokens_per_batch, int64_t ranks) {
  int64_t tokens = 0;
  for (const DocumentPiece& piece : pieces) tokens += piece.length();
  if (tokens == 0) return {};
  const int64_t rounds = (tokens + ranks * tokens_per_batch - 1) / (ranks * tokens_per_batch);
  std::vector<PieceBatch> batches(rounds * ranks);
  int64_t begin = 0;
  for (const DocumentPiece& piece : pieces) {
    // The batch in which the piece's middle lies.
    batches[(2 * begin + piece.length()) * rounds * ranks / (2 * tokens)].push_back(piece);
    begin += piece.length();
  }
  return batches;
}

absl::Status for_each_batch(
    const TokenDataset& data, const std::vector<PieceBatch>& batches, Communicator& world,
    const std::function<void(const PieceBatch& pieces, const MicroBatch& batch)>& pass) {
  for (size_t first = 0; first < batches.size(); first += world.size()) {
    const PieceBatch& pieces = batches[first + world.rank()];  // may be empty
    absl::StatusOr<Batch> batch = load_pieces(data, pieces);
    absl::Status status = agree(world, batch.status());
    if (!status.ok()) return status;
    MicroBatch tensors = to_tensors(*batch);
    set_document_ids(pieces, &tensors);
    pass(pieces, tensors);
  }
  return absl::OkStatus();
}

}  // namespace emo
