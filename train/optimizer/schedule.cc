#include "train/optimizer/schedule.h"

#include <cmath>
#include <numbers>

namespace emo {

double learning_rate(const Schedule& schedule, int64_t step, int64_t total_steps) {
  if (step < schedule.warmup_steps) {
    return schedule.peak * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  }
  if (schedule.kind == Schedule::Kind::kConstant) return schedule.peak;
  const double final_rate = schedule.final_fraction * schedule.peak;
  if (step >= total_steps) return final_rate;
  const double progress = static_cast<double>(step - schedule.warmup_steps) /
                          static_cast<double>(total_steps - schedule.warmup_steps);
  const double left = schedule.kind == Schedule::Kind::kCosine
                          ? (1 + std::cos(std::numbers::pi * progress)) / 2
                          : 1 - progress;
  return final_rate + (schedule.peak - final_rate) * left;
}

double learning_rate_from(const ScheduleStart& start, const Schedule& schedule, int64_t step,
                          int64_t total_steps) {
  Schedule rest = schedule;
  rest.peak = start.rate;
  rest.warmup_steps = 0;
  return learning_rate(rest, step - start.step, total_steps - start.step);
}

}  // namespace emo
