#include "eval/generation/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace emo {

int32_t sample(const float* logits, int64_t V, const SamplingOptions& options, uint64_t bits) {
  const float largest = *std::max_element(logits, logits + V);
  if (options.temperature <= 0) {
    return static_cast<int32_t>(std::find(logits, logits + V, largest) - logits);
  }
  std::vector<double> weights(V);
  double sum = 0;
  for (int64_t v = 0; v < V; ++v) {
    weights[v] = std::exp((static_cast<double>(logits[v]) - largest) / options.temperature);
    sum += weights[v];
  }
  // Most likely first; ties to the lower id, so that a draw is the same everywhere.
  std::vector<int32_t> order(V);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
  double kept = 0;
  int64_t candidates = 0;
  while (candidates < V && kept < options.top_p * sum) kept += weights[order[candidates++]];
  const double point = std::ldexp(static_cast<double>(bits >> 11), -53) * kept;  // in [0, kept)
  double below = 0;
  for (int64_t i = 0; i < candidates; ++i) {
    below += weights[order[i]];
    if (point < below) return order[i];
  }
  return order[std::max<int64_t>(0, candidates - 1)];
}

}  // namespace emo
