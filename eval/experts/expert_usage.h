// How much documents use each expert: sums over all tokens of groups of documents, of one pass.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/loss/document_batches.h"
#include "model/inference.h"

namespace emo {

// Numbers of each routed expert of each layer, [L][E]; empty in dense layers.
using ExpertNumbers = std::vector<std::vector<double>>;
ExpertNumbers zeros_like_experts(const ModelConfig& config);

// Sums over the documents of one group. The pass has no pools, as a model that is cut has none.
struct ExpertUsage {
  double documents = 0;
  double pieces = 0;  // of documents longer than the sequence length several
  double tokens = 0;
  ExpertNumbers probability;  // over tokens, the router's softmax over all experts
  ExpertNumbers selections;   // tokens that chose the expert
  ExpertNumbers weight;       // over those tokens, the expert's weight
  // EASY-EP (arXiv 2504.06792, as emo-facts 5.1 has it): over the tokens t that chose e
  //   g_te |E_e(h_t)| max(0, 1 - cos(h_t, h_t + o_t)),
  // h the layer's input behind the norm, o all that the layer adds, shared experts included.
  ExpertNumbers easy_ep;
  ExpertNumbers pools;  // pieces whose pool the expert would be in: a pool of the `pool` policy by
                        // the piece's scores
};

// The sums of both. REQUIRES: of the same model, or `b` empty.
ExpertUsage operator+(ExpertUsage a, const ExpertUsage& b);

struct UsageOptions {
  int64_t sequence_length = 1024;          // S
  std::vector<int32_t> group_of_document;  // [documents of the data], below `groups`; -1: left out
  int64_t groups = 1;
  int64_t first_tokens = 0;  // of each document; 0: all
  PoolPolicy pool;           // for ExpertUsage::pools; kNone: not counted
  PoolDraw pool_draw = PoolDraw::kPerLayer;
  uint64_t seed = 0;     // of pool sizes
  bool easy_ep = false;  // costs one more row of numbers back from the experts
  int64_t tokens_per_batch = 8192;
};

// Collective over the mesh: documents are dealt to ranks, every rank gets the sums over all,
// [groups]. DataLoss, on every rank, where one cannot read its documents.
// REQUIRES: group_of_document has an entry below `groups` for each document of the data; the data's
// tokens are the model's (open_data_for()).
absl::StatusOr<std::vector<ExpertUsage>> measure_usage(Inference* inference,
                                                       const TokenDataset& data,
                                                       const UsageOptions& options);

}  // namespace emo
