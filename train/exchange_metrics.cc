#include "train/exchange_metrics.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"

namespace emo {
namespace {

Metrics named(const std::string& prefix, const ExchangeTraffic& traffic) {
  return {{prefix + "exchange/MB sent", traffic.bytes / 1e6},
          {prefix + "exchange/expert rows max over mean", traffic.pairs_max_over_mean},
          {prefix + "exchange/wait seconds", traffic.waited_mean},
          {prefix + "exchange/largest wait seconds", traffic.waited_max}};
}

}  // namespace

Metrics exchange_metrics(const ModelConfig& config, const StepResult& result) {
  Metrics metrics;
  ExchangeTraffic total;
  if (result.traffic.empty()) return metrics;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    const ExchangeTraffic& here = result.traffic[static_cast<size_t>(layer)];
    for (auto& metric : named(absl::StrFormat("block %02d/", layer), here)) {
      metrics.push_back(std::move(metric));
    }
    total.bytes += here.bytes;
    total.pairs_max_over_mean = std::max(total.pairs_max_over_mean, here.pairs_max_over_mean);
    total.waited_mean += here.waited_mean;
    total.waited_max += here.waited_max;
  }
  for (auto& metric : named("", total)) metrics.push_back(std::move(metric));
  for (size_t rank = 0; rank < result.waited.size(); ++rank) {
    metrics.emplace_back(absl::StrFormat("rank %03d/exchange/wait seconds", rank),
                         result.waited[rank]);
  }
  return metrics;
}

}  // namespace emo
