#include "train/metrics/exchange_metrics.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"

namespace emo {
namespace {

// `by_rank`: one counter for each rank.
void add_metrics(const std::string& prefix, const std::vector<ExchangeCounters>& by_rank,
                 bool waits, Metrics* metrics) {
  ExchangeCounters sum, largest;
  for (const ExchangeCounters& c : by_rank) {
    sum += c;
    largest.pairs = std::max(largest.pairs, c.pairs);
    largest.waited = std::max(largest.waited, c.waited);
  }
  const auto ranks = static_cast<double>(by_rank.size());
  const double imbalance = sum.pairs > 0 ? largest.pairs / (sum.pairs / ranks) : 1;
  metrics->emplace_back(prefix + "exchange/MB sent", sum.bytes / ranks / 1e6);
  metrics->emplace_back(prefix + "exchange/expert rows max over mean", imbalance);
  if (!waits) return;
  metrics->emplace_back(prefix + "exchange/wait seconds", sum.waited / ranks);
  metrics->emplace_back(prefix + "exchange/largest wait seconds", largest.waited);
}

}  // namespace

Metrics exchange_metrics(const ModelConfig& config,
                         const std::vector<std::vector<ExchangeCounters>>& counted) {
  Metrics metrics;
  if (counted.empty()) return metrics;
  std::vector<ExchangeCounters> total(counted.size());  // by rank
  for (size_t rank = 0; rank < counted.size(); ++rank) {
    for (const ExchangeCounters& layer : counted[rank]) total[rank] += layer;
  }
  const bool waits = std::any_of(total.begin(), total.end(),
                                 [](const ExchangeCounters& c) { return c.waited > 0; });
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    std::vector<ExchangeCounters> by_rank;
    for (size_t rank = 0; rank < counted.size(); ++rank) {
      by_rank.push_back(counted[rank][static_cast<size_t>(layer)]);
    }
    add_metrics(absl::StrFormat("block %02d/", layer), by_rank, waits, &metrics);
  }
  add_metrics("", total, waits, &metrics);
  for (size_t rank = 0; waits && rank < total.size(); ++rank) {
    metrics.emplace_back(absl::StrFormat("rank %03d/exchange/wait seconds", rank),
                         total[rank].waited);
  }
  return metrics;
}

}  // namespace emo
