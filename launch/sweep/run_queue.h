// Carries out what is left of a sweep's runs, several at a time.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "launch/sweep/run_results.h"
#include "launch/sweep/sweep_runs.h"

namespace emo {

struct QueueResult {
  std::vector<RunFailure> failures;  // in the order in which they came
  bool stopped = false;              // by a signal; all that ran has saved
};

// Runs one after another, `jobs` at a time, each a process or `ranks` of them; goes on after one
// that fails, and keeps that in its folder. After SIGTERM, SIGINT or SIGUSR1 asks what runs to save
// and end, and starts nothing more. Shows one progress line over everything. Fails only before it
// has begun. REQUIRES: watch_stop_signals() was called.
absl::StatusOr<QueueResult> carry_out(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                      const SweepData& data, int jobs);

}  // namespace emo
