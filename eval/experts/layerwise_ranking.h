// The "layerwise" way to choose experts (emo-facts 5.1): from the first layer to the last, each is
// scored by what its router says on activations of a model whose earlier layers are already cut.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/experts/expert_usage.h"

namespace emo {

struct LayerwiseRanking {
  ExpertNumbers scores;                    // mean over tokens of the softmax over all experts
  std::vector<std::vector<int64_t>> kept;  // [L], see SubsetFile
};

// Collective over the mesh; every rank gets the same. `keep` [L] experts a layer, shared ones
// counted. The hidden states of all tokens of the documents stay in memory, [tokens, D] over all
// ranks, so that a layer is computed once however many there are. DataLoss, on every rank, where
// one cannot read its documents. REQUIRES: check_keep(config, keep) is OK; the data's tokens are
// the model's (open_data_for()).
absl::StatusOr<LayerwiseRanking> rank_layerwise(Inference* inference, const TokenDataset& data,
                                                const std::vector<int64_t>& documents,
                                                int64_t sequence_length,
                                                const std::vector<int64_t>& keep);

}  // namespace emo
