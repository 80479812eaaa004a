// What a step's expert exchange cost, as metrics.
#pragma once

#include "train/router_metrics.h"
#include "train/training_step.h"

namespace emo {

// Empty where experts are not spread over ranks. For each MoE layer "block NN/exchange/...": MB
// that a rank sent (mean), the busiest rank's share of expert rows over the mean, seconds waited
// for others (mean and largest over ranks); over layers the sums; and "rank NNN/exchange/wait
// seconds".
Metrics exchange_metrics(const ModelConfig& config, const StepResult& result);

}  // namespace emo
