#include "model/routing_gap.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

namespace emo {
namespace {

// Of numbers in falling order, between the `taken`-th and the next; none where all are taken.
double gap_behind(const std::vector<double>& falling, int64_t taken) {
  if (taken < 1 || taken >= static_cast<int64_t>(falling.size())) return RoutingGap::kNone;
  return (falling[taken - 1] - falling[taken]) / falling[taken - 1];
}

// A document's scores q [E] in falling order; see router.h.
std::vector<double> document_scores(const float* logits, int64_t tokens, int64_t E,
                                    const std::vector<uint8_t>& kept) {
  std::vector<double> q(E), p(E);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t e = 0; e < E; ++e) {
      const bool usable = kept.empty() || kept[e] != 0;
      p[e] = usable ? std::exp(static_cast<double>(logits[t * E + e])) : 0;
    }
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (int64_t e = 0; e < E; ++e) q[e] += p[e] / sum;
  }
  std::sort(q.begin(), q.end(), std::greater<>());
  return q;
}

// A top-p pool ends where enough is reached: how far its sums there are from that, as a part of
// all.
double top_p_gap(const std::vector<double>& falling, int64_t size, double top_p) {
  const double all = std::accumulate(falling.begin(), falling.end(), 0.0);
  const double reached = std::accumulate(falling.begin(), falling.begin() + size, 0.0) / all;
  return std::min(std::abs(reached - top_p), std::abs(reached - falling[size - 1] / all - top_p));
}

// The scores of a token's experts that it may choose, in falling order, by their ratio to the
// first: masking before or after the softmax leaves ratios alone.
std::vector<double> scores_in_pool(const float* z, int64_t E, const uint8_t* pool,
                                   const std::vector<uint8_t>& kept) {
  std::vector<double> scores;
  for (int64_t e = 0; e < E; ++e) {
    if (pool[e] != 0 && (kept.empty() || kept[e] != 0)) scores.push_back(z[e]);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  const double first = scores.empty() ? 0 : scores[0];
  for (double& score : scores) score = std::exp(score - first);
  return scores;
}

// With a bias keys are scores plus biases; their distance is a part of what was added up for the
// larger one. Scores are those of both masks, one of which was meant.
void take_gaps_of_keys(const float* z, int64_t E, const uint8_t* pool, const RouterInput& input,
                       RoutingGap* gap) {
  const std::vector<uint8_t>& kept = input.subset.kept;
  const auto* bias = input.bias.const_data_ptr<float>();
  const auto usable = [&](int64_t e) { return kept.empty() || kept[e] != 0; };
  for (const bool inside : {true, false}) {
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) {
      const bool counts =
          inside ? pool[e] != 0 && usable(e) : usable(e) || input.subset.full_weights;
      if (counts) sum += std::exp(static_cast<double>(z[e]));
    }
    std::vector<std::pair<double, double>> keys;  // and what was added up
    for (int64_t e = 0; e < E; ++e) {
      if (pool[e] == 0 || !usable(e)) continue;
      const double score = std::exp(static_cast<double>(z[e])) / sum;
      keys.emplace_back(score + bias[e], score + std::abs(static_cast<double>(bias[e])));
    }
    std::sort(keys.begin(), keys.end(), std::greater<>());
    for (int64_t k = 1; k <= input.top_k && k < static_cast<int64_t>(keys.size()); ++k) {
      double& of_choice = k == input.top_k ? gap->experts : gap->order;
      of_choice = std::min(of_choice, (keys[k - 1].first - keys[k].first) / keys[k - 1].second);
    }
  }
}

bool was_given(const std::vector<uint8_t>& pools, int64_t span, int64_t E) {
  const auto row = pools.begin() + (pools.empty() ? 0 : span * E);
  return !pools.empty() && std::any_of(row, row + E, [](uint8_t in) { return in != 0; });
}

}  // namespace

void RoutingGap::take(const RoutingGap& other) {
  pools = std::min(pools, other.pools);
  experts = std::min(experts, other.experts);
  order = std::min(order, other.order);
}

RoutingGap routing_gap(const RouterInput& input, const at::Tensor& pools) {
  const int64_t E = input.logits.size(1);
  const auto* logits = input.logits.const_data_ptr<float>();
  const auto* ends = input.spans.ends.const_data_ptr<int32_t>();
  const std::vector<uint8_t>& kept = input.subset.kept;
  RoutingGap gap;
  for (int64_t span = 0; span < input.spans.N; ++span) {
    const uint8_t* in_pool = pools.const_data_ptr<uint8_t>() + span * E;
    const int64_t size = std::count_if(in_pool, in_pool + E, [](uint8_t in) { return in != 0; });
    if (input.pool.kind != PoolPolicy::Kind::kNone && !was_given(input.subset.pools, span, E)) {
      const auto q = document_scores(logits + ends[span] * E, ends[span + 1] - ends[span], E,
                                     input.subset.full_weights ? std::vector<uint8_t>() : kept);
      gap.pools = std::min(gap.pools, gap_behind(q, size));
      if (input.pool.kind == PoolPolicy::Kind::kTopP) {
        gap.pools = std::min(gap.pools, top_p_gap(q, size, input.pool.top_p));
      }
    }
    for (int64_t t = ends[span]; t < ends[span + 1]; ++t) {
      if (input.bias.defined()) {
        take_gaps_of_keys(logits + t * E, E, in_pool, input, &gap);
        continue;
      }
      const std::vector<double> scores = scores_in_pool(logits + t * E, E, in_pool, kept);
      gap.experts = std::min(gap.experts, gap_behind(scores, input.top_k));
      const auto chosen = std::min<int64_t>(input.top_k, static_cast<int64_t>(scores.size()));
      for (int64_t k = 1; k < chosen; ++k) gap.order = std::min(gap.order, gap_behind(scores, k));
    }
  }
  return gap;
}

RoutingGap routing_gap(const Inference& inference, const InferenceOptions& options,
                       const Slice& slice, const BlockView& block) {
  const PassSettings& settings = options.settings;
  RouterInput input;
  input.logits = block.router_logits;
  input.spans.ends = slice.routing_ends;
  input.spans.N = slice.routing_ends.numel() - 1;
  input.pool = settings.pool_of(inference.contract());
  input.top_k = inference.config().routed_top_k(block.layer);
  input.bias = inference.selection_bias(block.layer);
  if (!settings.subsets.empty()) input.subset = settings.subsets[block.layer];
  return routing_gap(input, block.pools);
}

RoutingGap routing_gap(const std::vector<BlockActivations>& blocks) {
  RoutingGap gap;
  for (const BlockActivations& block : blocks) {
    if (!block.moe.router_input.logits.defined()) continue;  // a dense layer
    gap.take(routing_gap(block.moe.router_input, block.moe.routing.pools));
  }
  return gap;
}

}  // namespace emo
