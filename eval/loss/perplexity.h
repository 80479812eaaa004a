// The loss of a model on documents, each alone (document_batches.h).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/token_dataset.h"
#include "eval/loss/document_batches.h"
#include "model/inference.h"

namespace emo {

// Sums over the documents of one source. Means of it are NaN where nothing was predicted, as of
// documents without text: tables show "-" and JSON null (data/program/table_number.h).
struct SourceLoss {
  double loss = 0;       // nats
  double predicted = 0;  // tokens
  double bytes = 0;      // of UTF-8 text
  double documents = 0;
  // What is not a number where nothing was predicted; bits_per_byte() also where bytes is 0.
  double mean() const;
  double perplexity() const;
  double bits_per_byte() const;
};

// One document's sums.
struct DocumentLoss {
  double loss = 0;       // nats
  double predicted = 0;  // tokens
};

struct EvalOptions {
  int64_t sequence_length = 1024;  // S
  std::vector<int64_t> documents;  // by number, see choose_documents()
  int64_t first_tokens = 0;        // of each document, whose bytes then mean nothing; 0: all
  PassSettings pass;
  // Called after each block of a forward pass of this rank. May be empty.
  std::function<void(const Slice& batch, const BlockView& block)> observe;
  int64_t tokens_per_batch = 8192;  // about; each rank gets as many batches
};

struct EvalResult {
  std::vector<SourceLoss> sources;      // [sources of the data]
  std::vector<DocumentLoss> documents;  // [documents], in the order of EvalOptions::documents
};

// Collective over the mesh: documents are dealt to ranks, every rank gets the sums over all. Every
// rank passes the same options. DataLoss, on every rank, where one cannot read its documents.
// REQUIRES: the data's tokens are the model's (open_data_for()); sequence_length is at least 2;
// subsets fit the model's layers.
absl::StatusOr<EvalResult> evaluate(Inference* inference, const TokenDataset& data,
                                    const EvalOptions& options);

// The sum over sources.
SourceLoss total(const std::vector<SourceLoss>& sources);

}  // namespace emo
