#include "model/device/kernels/router_choice.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

// ranked [N, E]: the experts of each document in order of q, which is 0 or more.
void rank_experts(const at::Tensor& q, const at::Tensor& ranked) {
  const int64_t E = q.size(1);
  const auto* score = q.const_data_ptr<double>();
  auto* by_rank = ranked.mutable_data_ptr<int32_t>();
  for_each(q.device(), q.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const double* row = score + i / E * E;
    const int64_t e = i % E;
    // What is not a number goes last, so that ranks are a permutation whatever the scores are.
    const auto key = [=](int64_t n) { return row[n] >= 0 ? row[n] : -1.0; };
    const double own = key(e);
    int64_t rank = 0;
    for (int64_t other = 0; other < E; ++other) {
      rank += key(other) > own || (key(other) == own && other < e) ? 1 : 0;
    }
    by_rank[i / E * E + rank] = static_cast<int32_t>(e);
  });
}

// The smallest sizes whose experts have the share top_p of q, in [min, sizes].
void shrink_to_share(const at::Tensor& q, const PoolPolicy& policy, const at::Tensor& ranked,
                     const at::Tensor& sizes) {
  const int64_t E = q.size(1);
  const auto* score = q.const_data_ptr<double>();
  const auto* by_rank = ranked.const_data_ptr<int32_t>();
  auto* size = sizes.mutable_data_ptr<int32_t>();
  const double top_p = policy.top_p;
  const int64_t least = policy.min < E ? policy.min : E;
  for_each(q.device(), q.size(0), [=] EMO_HOST_DEVICE(int64_t span) {
    const double* row = score + span * E;
    const int64_t most = size[span] < E ? size[span] : E;
    double total = 0;
    for (int64_t e = 0; e < E; ++e) total += row[e];
    const double wanted = top_p * total;
    double reached = 0;
    int64_t n = 0;
    while (n < most && reached < wanted) reached += row[by_rank[span * E + n++]];
    size[span] = static_cast<int32_t>(n < least ? least : n);
  });
}

}  // namespace

void choose_pools(const at::Tensor& q, const PoolPolicy& policy, const at::Tensor& sizes,
                  const at::Tensor& ranked, const at::Tensor& pools) {
  const int64_t E = q.size(1);
  rank_experts(q, ranked);
  if (policy.kind == PoolPolicy::Kind::kTopP) shrink_to_share(q, policy, ranked, sizes);
  const auto* by_rank = ranked.const_data_ptr<int32_t>();
  const auto* size = sizes.const_data_ptr<int32_t>();
  auto* pool = pools.mutable_data_ptr<uint8_t>();
  for_each(q.device(), q.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t span = i / E;
    pool[span * E + by_rank[i]] = i % E < size[span] ? 1 : 0;
  });
}

void choose_experts(const at::Tensor& logits, const at::Tensor& logsumexp, const Spans& spans,
                    const at::Tensor& pools, const at::Tensor& bias, const at::Tensor& experts,
                    const at::Tensor& weights) {
  const int64_t E = logits.size(1);
  const int64_t K = experts.size(1);
  const auto* z_of = logits.const_data_ptr<float>();
  const auto* lse = logsumexp.const_data_ptr<float>();
  const auto* span_of = spans.span_of.const_data_ptr<int32_t>();
  const auto* pool_of = pools.const_data_ptr<uint8_t>();
  const float* bias_of = data_or_null<float>(bias);
  auto* chosen = experts.mutable_data_ptr<int32_t>();
  auto* weight = weights.mutable_data_ptr<float>();
  for_each_row(logits.device(), logits.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const float* z = z_of + t * E;
    const uint8_t* pool = pool_of + span_of[t] * E;
    // Each round takes the best of those behind the last one in the order (key down, index up).
    float last = INFINITY;
    int last_expert = -1;
    for (int64_t k = 0; k < K; ++k) {
      float best = -INFINITY;
      auto place = static_cast<int>(E);
      for (int64_t e = lanes.index(); e < E; e += lanes.count()) {
        if (pool[e] == 0) continue;
        const float score = expf(z[e] - lse[t]);
        const float key = bias_of == nullptr ? score : score + bias_of[e];
        const bool behind = key < last || (key == last && e > last_expert);
        if (behind && key > best) {
          best = key;
          place = static_cast<int>(e);
        }
      }
      lanes.largest(&best, &place);
      const bool found = place < E;
      if (lanes.index() == 0) {
        chosen[t * K + k] = found ? place : -1;
        weight[t * K + k] = !found ? 0.0f : bias_of == nullptr ? best : expf(z[place] - lse[t]);
      }
      last = best;
      last_expert = place;
    }
  });
}

}  // namespace emo::device
