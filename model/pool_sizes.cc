#include "model/pool_sizes.h"

#include <algorithm>
#include <cmath>

#include "model/philox.h"

namespace emo {

int64_t draw_pool_size(const PoolPolicy& policy, PoolDraw draw, uint64_t seed, int64_t sequence,
                       int32_t ordinal, int64_t layer) {
  const auto number = static_cast<uint64_t>(sequence);
  const uint32_t word = draw == PoolDraw::kPerDocument ? 0xFFFFFFFFu : static_cast<uint32_t>(layer);
  const uint64_t u =
      philox(philox_key(seed), {static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32),
                                static_cast<uint32_t>(ordinal), word})[0];
  const int64_t min = policy.min_of(layer);
  const auto sizes = static_cast<uint64_t>(policy.max - min + 1);
  return min + static_cast<int64_t>((u * sizes) >> 32);
}

std::vector<int64_t> draw_pool_sizes(const PoolPolicy& policy, PoolDraw draw, uint64_t seed,
                                     const at::Tensor& sequence_index, const at::Tensor& ordinal,
                                     int64_t layer, int64_t experts) {
  const int64_t N = sequence_index.numel();
  std::vector<int64_t> sizes(N, policy.kind == PoolPolicy::Kind::kNone ? experts : policy.max);
  if (policy.kind != PoolPolicy::Kind::kRange) return sizes;
  const auto* sequence = sequence_index.const_data_ptr<int64_t>();
  const auto* number = ordinal.const_data_ptr<int32_t>();
  for (int64_t n = 0; n < N; ++n) {
    sizes[n] = draw_pool_size(policy, draw, seed, sequence[n], number[n], layer);
  }
  return sizes;
}

PoolPolicy scheduled_policy(const PoolPolicy& policy, const PoolSchedule& schedule, int64_t experts,
                            int64_t updates) {
  if (schedule.steps == 0) return policy;
  const double done =
      std::min(1.0, static_cast<double>(updates) / static_cast<double>(schedule.steps));
  const auto moved = [&](int64_t end) {
    const auto all = static_cast<double>(experts);
    return static_cast<int64_t>(std::nearbyint(all - done * (all - static_cast<double>(end))));
  };
  PoolPolicy now = policy;
  now.min = moved(policy.min);
  now.max = moved(policy.max);
  for (int64_t& min : now.min_by_layer) min = moved(min);
  return now;
}

PoolPolicy eval_policy(const PoolPolicy& policy) {
  PoolPolicy fixed;
  fixed.kind = policy.eval ? PoolPolicy::Kind::kRange : PoolPolicy::Kind::kNone;
  fixed.min = fixed.max = policy.eval.value_or(0);
  fixed.eval = policy.eval;
  return fixed;
}

}  // namespace emo
