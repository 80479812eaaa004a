// The runs of a sweep: every arm with every seed, its config read and checked, before the first
// starts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/shards/dataset_info.h"
#include "eval/experts/retention.h"
#include "train/config/sweep_config.h"

namespace emo {

struct SweepRun {
  const SweepArm* arm = nullptr;  // of the sweep, which outlives it
  uint64_t seed = 0;
  std::string name;    // "u4-28 seed 2"
  std::string folder;  // its run.folder, where what is measured of it stands too
  RunConfig config;
  std::vector<std::string> overrides;  // "section.key=value", of the sweep's base
  int64_t ranks = 1;                   // MPI processes
  bool cut = false;                    // whether subsets of its experts are measured
};

// Seed after seed, so that all arms of the first are done first. InvalidArgument with all that is
// wrong with any arm's config, what they share once.
absl::StatusOr<std::vector<SweepRun>> runs_of(const SweepConfig& sweep);

// What is asked of emo experts retention.
RetentionOptions retention_options(const SweepConfig::Measure& measure);

// What is measured on.
struct SweepData {
  DatasetInfo test;
  DatasetInfo validation;  // empty where experts are not cut
};

// What the runs need and is not there, or does not fit: data, files, numbers of documents, and of
// `standing` those that stand in the folder and were made otherwise, of other data, or longer; all
// of it at once, one a line. InvalidArgument, NotFound where that is all there is.
absl::StatusOr<SweepData> check_runs(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                     const std::vector<SweepRun>& standing);

// Whether a run's training is done: its last checkpoint is of its last step. False where another
// process removes that one meanwhile. Errors as read_position().
absl::StatusOr<bool> is_trained(const SweepRun& run);

}  // namespace emo
