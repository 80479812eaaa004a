// How many floating-point operations a token costs. Only products that are needed count: experts
// chosen, the causal half of attention, inside documents. Forward and backward: 6 for each
// multiply-add of the forward pass.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace emo {

// Mean over tokens; `attention_ends` are the ends of a typical batch's attention spans, which
// decide what attention costs.
double flops_per_token(const ModelConfig& config, const std::vector<int32_t>& attention_ends);

// The reference's count (emo-facts 3.8): no causal half, attention over the whole row, the router's
// and experts' parameters per token, without the input embedding.
double reference_flops_per_token(const ModelConfig& config, int64_t sequence_length);

}  // namespace emo
