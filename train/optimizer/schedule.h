// Learning rates over steps, counted from 1 (emo-facts 3.2).
#pragma once

#include <cstdint>

namespace emo {

struct Schedule {
  enum class Kind {
    kCosine,    // warm-up, then half a cosine from peak to final_fraction * peak at the last step
    kLinear,    // warm-up, then a line from peak to final_fraction * peak at the last step
    kConstant,  // warm-up, then peak
  };
  Kind kind = Kind::kCosine;
  double peak = 4e-3;
  int64_t warmup_steps = 2000;
  double final_fraction = 0.1;
};

// The rate of step `step`, from 1 on. During warm-up peak * step / warmup_steps; from
// total_steps on the final rate.
double learning_rate(const Schedule& schedule, int64_t step, int64_t total_steps);

}  // namespace emo
