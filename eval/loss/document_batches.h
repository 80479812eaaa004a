// Documents of a data set as batches of a forward pass: each alone, cut into pieces of at most S
// tokens, where each further piece begins with the last token of the one before, so that all tokens
// but a document's first, its end included, are predicted once; of a task's question
// (docs/tasks.md) only those of the answer are.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/token_dataset.h"
#include "model/micro_batch.h"
#include "parallel/communicator.h"

namespace emo {

// Which documents: those of these sources (empty: all), and of them as many (0: all), each equally
// likely, drawn by the seed.
struct DocumentChoice {
  std::vector<int32_t> sources;
  int64_t documents = 0;
  uint64_t seed = 0;
};

// Numbers of documents, counted over all shards, in the order in which they are drawn: the first n
// of a larger choice are the choice of n.
std::vector<int64_t> choose_documents(const TokenDataset& data, const DocumentChoice& choice);

// The ids of documents, by their numbers. DataLoss where a file of ids has another number of them.
absl::StatusOr<std::vector<std::string>> ids_of_documents(const TokenDataset& data,
                                                          const std::vector<int64_t>& documents);

// All documents of the data set.
int64_t count_documents(const TokenDataset& data);

// A piece of a document: tokens [begin, end) of a shard.
struct DocumentPiece {
  int64_t shard, begin, end;
  int64_t number;   // of the document: its id for pool sizes
  int32_t ordinal;  // of the piece in the document
  int32_t source;   //
  uint64_t bytes;   // of the document's text; 0 where ordinal is not
  int64_t context;  // its first tokens, which are not predicted: 1, or what the document gives
  int64_t length() const { return end - begin; }
};
using PieceBatch = std::vector<DocumentPiece>;

// The pieces of documents, in order of their numbers; of each document the first `first_tokens`, or
// all where that is 0.
std::vector<DocumentPiece> cut_documents(const TokenDataset& data,
                                         const std::vector<int64_t>& documents, int64_t S,
                                         int64_t first_tokens = 0);

// Deals pieces, in order, into batches of about tokens_per_batch, as even as pieces go and so many
// that each of `ranks` gets the same number; some may be empty.
std::vector<PieceBatch> deal_batches(const std::vector<DocumentPiece>& pieces,
                                     int64_t tokens_per_batch, int64_t ranks);

// Collective. Calls `pass` for this rank's batches, one after another; each is one row with a span
// for each piece, its sequence indices the documents' numbers. DataLoss, on every rank, where one
// cannot read its own.
absl::Status for_each_batch(
    const TokenDataset& data, const std::vector<PieceBatch>& batches, Communicator& world,
    const std::function<void(const PieceBatch& pieces, const Slice& batch)>& pass);

}  // namespace emo
