// What a step's router sums say, under OLMo-core's metric names (emo-facts 1.7).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/config.h"
#include "model/losses.h"

namespace emo {

using Metrics = std::vector<std::pair<std::string, double>>;  // in a fixed order

// For each MoE layer "block NN/<name>", and over layers "<name>": the sum, or the largest for "load
// imbalance". `sums` are those of all ranks. Beside the reference's names: "dead experts" (routed
// experts that no token chose, of those that the losses are of) and "pool size" (the mean over
// documents), both averaged over layers.
Metrics router_metrics(const ModelConfig& config, const RoutingContract& contract,
                       const LossSums& sums, double divisor);

}  // namespace emo
