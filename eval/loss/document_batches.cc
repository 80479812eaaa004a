#include "eval/loss/document_batches.h"

#include <algorithm>

#include "data/order/random_bits.h"
#include "eval/loss/sequence_batch.h"
#include "parallel/agreement.h"

namespace emo {
namespace {

absl::StatusOr<Slice> load_pieces(const TokenDataset& data, const PieceBatch& pieces) {
  std::vector<Sequence> sequences;
  for (const DocumentPiece& piece : pieces) {
    Sequence sequence{{}, piece.context, piece.number, piece.ordinal};
    sequence.tokens.resize(piece.length());
    absl::Status status =
        data.read(piece.shard, piece.begin, piece.length(), sequence.tokens.data());
    if (!status.ok()) return status;
    sequences.push_back(std::move(sequence));
  }
  return sequence_batch(sequences);
}

}  // namespace

std::vector<int64_t> choose_documents(const TokenDataset& data, const DocumentChoice& choice) {
  std::vector<std::pair<uint64_t, int64_t>> candidates;
  int64_t number = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (const StoredDocument& document : data.documents(shard)) {
      const auto source = static_cast<int32_t>(document.source);
      const bool candidate =
          choice.sources.empty() ||
          std::find(choice.sources.begin(), choice.sources.end(), source) != choice.sources.end();
      if (candidate) {
        candidates.emplace_back(random_bits(choice.seed, 0, static_cast<uint64_t>(number)), number);
      }
      ++number;
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

absl::StatusOr<std::vector<std::string>> ids_of_documents(const TokenDataset& data,
                                                          const std::vector<int64_t>& documents) {
  std::vector<std::string> all;
  for (const DatasetInfo::Shard& shard : data.info().shards) {
    absl::StatusOr<std::vector<std::string>> ids = document_ids(data.folder(), shard);
    if (!ids.ok()) return ids.status();
    all.insert(all.end(), ids->begin(), ids->end());
  }
  std::vector<std::string> chosen;
  for (const int64_t number : documents) chosen.push_back(all[number]);
  return chosen;
}

int64_t count_documents(const TokenDataset& data) {
  int64_t documents = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    documents += static_cast<int64_t>(data.documents(shard).size());
  }
  return documents;
}

std::vector<DocumentPiece> cut_documents(const TokenDataset& data,
                                         const std::vector<int64_t>& documents, int64_t S,
                                         int64_t first_tokens) {
  std::vector<uint8_t> chosen(count_documents(data), 0);
  for (const int64_t number : documents) chosen[number] = 1;
  std::vector<DocumentPiece> pieces;
  int64_t number = 0;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (const StoredDocument& document : data.documents(shard)) {
      const int64_t begin = document.begin;
      const int64_t end =
          first_tokens > 0 ? std::min(document.end, begin + first_tokens) : document.end;
      int32_t ordinal = 0;
      for (int64_t at = begin; chosen[number] != 0 && (at + 1 < end || ordinal == 0); ++ordinal) {
        const int64_t piece_end = std::min(at + S, end);
        const int64_t given = begin + static_cast<int64_t>(document.context);
        pieces.push_back({shard, at, piece_end, number, ordinal,
                          static_cast<int32_t>(document.source), ordinal == 0 ? document.bytes : 0,
                          std::clamp(given - at, int64_t{1}, piece_end - at)});
        at = piece_end - 1;
      }
      ++number;
    }
  }
  return pieces;
}

std::vector<PieceBatch> deal_batches(const std::vector<DocumentPiece>& pieces,
                                     int64_t tokens_per_batch, int64_t ranks) {
  std::vector<int64_t> lengths;
  for (const DocumentPiece& piece : pieces) lengths.push_back(piece.length());
  int64_t count = 0;
  const std::vector<int64_t> batch_of = deal_lengths(lengths, tokens_per_batch, ranks, &count);
  std::vector<PieceBatch> batches(count);
  for (size_t i = 0; i < pieces.size(); ++i) batches[batch_of[i]].push_back(pieces[i]);
  return batches;
}

absl::Status for_each_batch(
    const TokenDataset& data, const std::vector<PieceBatch>& batches, Communicator& world,
    const std::function<void(const PieceBatch& pieces, const Slice& batch)>& pass) {
  for (size_t first = 0; first < batches.size(); first += world.size()) {
    const PieceBatch& pieces = batches[first + world.rank()];  // may be empty
    absl::StatusOr<Slice> batch = load_pieces(data, pieces);
    absl::Status status = agree(world, batch.status());
    if (!status.ok()) return status;
    pass(pieces, *batch);
  }
  return absl::OkStatus();
}

}  // namespace emo
