#include "train/metrics/router_metrics.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"

namespace emo {
namespace {

Metrics layer_metrics(const ModelConfig& config, const RoutingContract& contract, int64_t index,
                      const RouterSums& layer, double moe_layers, double divisor) {
  const auto E = static_cast<double>(config.routed_experts(index));
  const auto shared = static_cast<double>(config.num_shared_experts);
  double total = 0;
  double largest = 0;
  double used = 0;
  for (const double count : layer.counts) {
    total += count;
    largest = std::max(largest, count);
    used += count > 0 ? 1 : 0;
  }
  const double z = layer.z_squares / divisor;
  Metrics metrics = {
      {"load imbalance", total > 0 ? largest / (total / E) : 0},
      {"load balancing loss", layer.balance * contract.balance_weight / moe_layers},
      {"load balancing loss unscaled", layer.balance},
      {"router Z loss", z * contract.z_weight / moe_layers},
      {"router Z loss unscaled", z},
      {"unique experts used per batch", used + shared},
      {"fraction of experts used per batch", (used + shared) / (E + shared)},
      {"dead experts", E - used},
      {"router token-level expert entropy",
       layer.tokens > 0 ? layer.token_entropy / layer.tokens : 0},
  };
  if (layer.documents > 0) {
    metrics.emplace_back("router document-level expert entropy",
                         layer.document_entropy / layer.documents);
    metrics.emplace_back("pool size", layer.pool_size / layer.documents);
  }
  return metrics;
}

// One metric of all layers, as one number.
std::pair<std::string, double> over_layers(const std::string& name,
                                           const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  if (name == "load imbalance") {
    return {"max " + name, *std::max_element(values.begin(), values.end())};
  }
  if (absl::StrContains(name, "loss")) return {name, sum};
  return {"mean " + name, sum / static_cast<double>(values.size())};
}

}  // namespace

Metrics router_metrics(const ModelConfig& config, const RoutingContract& contract,
                       const LossSums& sums, double divisor) {
  Metrics all;
  std::vector<std::pair<std::string, std::vector<double>>> by_name;  // [metrics], of each layer
  const auto moe_layers = static_cast<double>(config.moe_layers());
  size_t next = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    const Metrics metrics =
        layer_metrics(config, contract, layer, sums.layers[next++], moe_layers, divisor);
    by_name.resize(metrics.size());
    for (size_t i = 0; i < metrics.size(); ++i) {
      const auto& [name, value] = metrics[i];
      all.emplace_back(absl::StrFormat("block %02d/%s", layer, name), value);
      by_name[i].first = name;
      by_name[i].second.push_back(value);
    }
  }
  for (const auto& [name, values] : by_name) all.push_back(over_layers(name, values));
  return all;
}

}  // namespace emo
