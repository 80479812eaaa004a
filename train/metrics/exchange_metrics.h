// What a step's expert exchange cost, as metrics.
#pragma once

#include "parallel/traffic.h"
#include "train/metrics/router_metrics.h"

namespace emo {

// `counted`: by rank and layer (gather_counters). Empty without ranks. For each MoE layer
// "block NN/exchange/<name>", and for all layers together "exchange/<name>": "MB sent" (mean over
// ranks), "expert rows max over mean" (of the busiest rank; 1 where there are none), "wait seconds"
// and "largest wait seconds" (mean and largest over ranks). "rank NNN/exchange/wait seconds" for
// each rank: the one that others wait for is the one that waits least. Without the waiting where no
// rank waited: a device does not measure it.
Metrics exchange_metrics(const ModelConfig& config,
                         const std::vector<std::vector<ExchangeCounters>>& counted);

}  // namespace emo
