// What a sweep will take, before it starts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "launch/sweep/sweep_runs.h"

namespace emo {

struct ArmPlan {
  std::string name;
  int64_t runs = 0, left = 0;     // left: of which something is to be done
  int64_t parameters = 0;         // of one model
  int64_t tokens = 0;             // that one run sees
  std::optional<double> minutes;  // of all that is left, one run at a time; none: not known
  int64_t disk_bytes = 0;         // that is to come, of all runs at their end
};

struct SweepPlan {
  std::vector<ArmPlan> arms;
  std::optional<double> minutes;  // with `jobs` at a time
  int64_t disk_bytes = 0;         // at the most: what stays, and the checkpoints of running ones
  int64_t free_bytes = 0;         // where the sweep's folder is, or will be
};

// Times a few steps of each kind of model that is left, by `emo bench step`; of models that take
// more than half of this machine's memory the minutes are not known. Cancelled where
// a stop is requested meanwhile; else as stages_left().
absl::StatusOr<SweepPlan> plan_sweep(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                     const SweepData& data, int jobs);

// ResourceExhausted where the disk has less than the plan takes.
absl::Status check_disk(const SweepConfig& sweep, const SweepPlan& plan);

std::string to_table(const SweepPlan& plan, int jobs);
OrderedJson to_json(const SweepPlan& plan);

}  // namespace emo
