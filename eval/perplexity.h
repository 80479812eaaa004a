// The loss of a model on documents, each alone: cut into pieces of at most S tokens, where each
// further piece begins with the last token of the one before, so that all tokens but a document's
// first, its end included, are predicted once.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "data/token_shards.h"
#include "model/transformer.h"
#include "parallel/mesh.h"

namespace emo {

// Sums over the documents of one source.
struct SourceLoss {
  double loss = 0;       // nats
  double predicted = 0;  // tokens
  double bytes = 0;      // of UTF-8 text
  double documents = 0;
  double mean() const { return loss / predicted; }
  double perplexity() const;
  double bits_per_byte() const;
};

struct EvalOptions {
  int64_t sequence_length = 1024;     // S
  std::vector<int32_t> sources;       // only documents of these; empty: all
  PoolPolicy pool;                    // kNone: no pools
  std::vector<ExpertSubset> subsets;  // [L], or empty
  bool routed_off = false;
  bool want_probability = false;  // fill EvalResult::router_probability
  // Called after the forward pass of each batch of this rank; the batch's spans are pieces of
  // documents, its sequence indices numbers of documents. May be empty.
  std::function<void(const MicroBatch&, const Activations&)> observe;
  int64_t documents = 0;            // at most so many, drawn by `document_seed`; 0: all
  uint64_t document_seed = 0;       //
  uint64_t seed = 0;                // of pool sizes
  int64_t tokens_per_batch = 8192;  // about; each rank gets as many batches
};

struct EvalResult {
  std::vector<SourceLoss> sources;  // [sources of the data]
  // Sums over tokens of the router's softmax over all experts, [L][E]; where asked for.
  std::vector<std::vector<double>> router_probability;
};

// Collective over the mesh: documents are dealt to ranks, every rank gets the sums over all.
// `memory` is the passes', for the caller to keep from call to call.
absl::StatusOr<EvalResult> evaluate(const Model& model, const Mesh& mesh, const TokenDataset& data,
                                    const EvalOptions& options, PassMemory* memory);

// The sum over sources.
SourceLoss total(const std::vector<SourceLoss>& sources);

}  // namespace emo
