// What a step's router sums say, of each MoE layer and of all of them (docs/metrics.md).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/config.h"
#include "model/losses.h"

namespace emo {

using Metrics = std::vector<std::pair<std::string, double>>;  // in a fixed order

// REQUIRES: `sums` are those of all ranks (StepResult::sums), of a model of `config`; divisor > 0.
// For each MoE layer "block NN/<name>", under OLMo-core's names and, ours, "dead experts" (routed
// experts that no token chose, of those that the losses are of) and "pool size" (the mean over
// documents). Then over the layers: sums of losses, as they enter the objective, under the same
// name; "max load imbalance"; of all else "mean <name>".
Metrics router_metrics(const ModelConfig& config, const RoutingContract& contract,
                       const LossSums& sums, double divisor);

}  // namespace emo
