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
  enum class Start {
    kBeginning,   // step 0, as above
    kCheckpoint,  // the step and rate of the checkpoint that the run started from: from there a
                  // line, or half a cosine, to final_fraction of that rate at the last step (an
                  // anneal)
  };
  Kind kind = Kind::kCosine;
  Start start = Start::kBeginning;
  double peak = 4e-3;
  int64_t warmup_steps = 2000;
  double final_fraction = 0.1;
};

// Where a schedule that starts at a checkpoint does.
struct ScheduleStart {
  int64_t step = -1;  // -1: at no checkpoint
  double rate = 0;    // of that step
};

// The rate of a step of a schedule that starts there, instead of with a warm-up.
// REQUIRES: start.step < step, start.step < total_steps.
double learning_rate_from(const ScheduleStart& start, const Schedule& schedule, int64_t step,
                          int64_t total_steps);

// The rate of step `step`, from 1 on. During warm-up peak * step / warmup_steps; from
// total_steps on the final rate.
double learning_rate(const Schedule& schedule, int64_t step, int64_t total_steps);

}  // namespace emo
