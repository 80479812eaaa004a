// The random size of each document's expert pool: a function of the run's seed, the document's id
// and the layer, so the same whatever the ranks, micro-batches, recomputation or resuming.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace emo {

// One draw (design.md, routing contract): counter = (sequence low, high, ordinal, layer), layer
// 0xFFFFFFFF with kPerDocument; size = min + ((first word * (max - min + 1)) >> 32), min that of
// the layer: one draw for all layers is scaled to the range of each.
int64_t draw_pool_size(const PoolPolicy& policy, PoolDraw draw, uint64_t seed, int64_t sequence,
                       int32_t ordinal, int64_t layer);

// Sizes for a batch's documents, [N]: drawn for kRange; max for kTopP, which the router shrinks;
// `experts` (nothing masked) for kNone. sequence_index i64 [N], ordinal i32 [N].
std::vector<int64_t> draw_pool_sizes(const PoolPolicy& policy, PoolDraw draw, uint64_t seed,
                                     const at::Tensor& sequence_index, const at::Tensor& ordinal,
                                     int64_t layer, int64_t experts);

// The policy of the step after `updates` of them: each end b of {min, max} is
//   round(E - f * (E - b)), f = min(1, updates / steps), halves to even,
// with the layers' minima likewise, as the reference's schedule (emo-facts 1.8). Without a schedule
// the policy itself.
PoolPolicy scheduled_policy(const PoolPolicy& policy, const PoolSchedule& schedule, int64_t experts,
                            int64_t updates);

// The policy that evaluation during training uses: the contract's fixed size, or no pools.
PoolPolicy eval_policy(const PoolPolicy& policy);

}  // namespace emo
