// Noise on what a router sees while it is trained (routing.jitter): each number of its input times
// one of its own, uniform in [1 - epsilon, 1 + epsilon] (Fedus et al. 2021, arXiv 2101.03961). A
// function of the run's seed, the token's place in the run, the feature and the layer, so the same
// whatever the ranks, slices, recomputation or resuming; nothing is kept from pass to pass.
//
// Words of Philox4x32-10 (philox.h) with the key of pool sizes, four features a block:
//   (sequence low, sequence high, position in its row, 2^31 | layer * 2^16 | block of features)
// The last word of a pool size's counter (pool_sizes.h) is a layer, below 2^31, or 2^32 - 1, which
// no layer below 2^15 - 1 makes here: the two never meet.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/config.h"
#include "model/philox.h"

namespace emo {

constexpr int64_t kJitterBlock = 4;  // features whose numbers are words of one counter

// One layer's noise on the tokens of a slice, where the back end computes.
struct RouterJitter {
  float epsilon = 0;  // 0: none
  uint64_t seed = 0;
  int64_t layer = 0;
  int64_t row_tokens = 1;     // S
  at::Tensor span_of;         // i32 [T] routing span of each token
  at::Tensor sequence_index;  // i64 [N] of the row that the span lies in, over the run
};

// Whether counters have room for a model of these sizes.
inline bool jitter_fits(const ModelConfig& config) {
  return config.n_layers < (1 << 15) && config.d_model <= kJitterBlock << 16;
}

// Words of features [4 block, 4 block + 4). For kernels too.
constexpr PhiloxCounter jitter_words(uint64_t seed, int64_t sequence, int64_t position,
                                     int64_t layer, int64_t block) {
  const auto number = static_cast<uint64_t>(sequence);
  return philox(philox_key(seed),
                {static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32),
                 static_cast<uint32_t>(position),
                 0x80000000u | static_cast<uint32_t>(layer) << 16 | static_cast<uint32_t>(block)});
}

// The factor that a word makes.
constexpr float jitter_factor(uint32_t word, float epsilon) {
  return 1.0f + epsilon * (static_cast<float>(static_cast<int32_t>(word)) * 0x1p-31f);
}

}  // namespace emo
