// How much an evaluation between training steps computes.
#pragma once

#include <cstdint>

#include "model/inference.h"
#include "train/trainer.h"

namespace emo {

// Collective; every rank gets the first one's answer. Tokens of forward passes, over all ranks,
// that one evaluation may take: eval.tokens where the config has it; else what observation.size
// holds of an earlier measurement for the same eval.share and eval.every; else
//   eval.share * eval.every * seconds of a step * tokens a second of forward passes,
// both measured on the machine that trains, the second now, on made-up rows. The answer goes into
// observation.size, but for one that follows from a run's first step. At least 1.
int64_t evaluation_tokens(const RunConfig& config, const Observation& observation,
                          Inference* inference);

}  // namespace emo
