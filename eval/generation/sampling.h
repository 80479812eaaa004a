// The next token, from a model's logits.
#pragma once

#include <cstdint>
#include <vector>

namespace emo {

struct SamplingOptions {
  double temperature = 0;  // 0: the most likely token, ties to the lower id
  double top_p = 1;        // only the most likely tokens that together have this probability
  uint64_t seed = 0;
};

// A token below V. REQUIRES: V > 0, logits [V] without a NaN. `bits`: 64 random ones, which decide
// the draw; not used at temperature 0.
int32_t sample(const float* logits, int64_t V, const SamplingOptions& options, uint64_t bits);

}  // namespace emo
