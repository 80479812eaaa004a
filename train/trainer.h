// A training run: from a config to checkpoints and metrics in its folder.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/rows/chunk_source.h"
#include "parallel/mesh.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/run_config.h"
#include "train/metrics/router_metrics.h"
#include "train/step/stepper.h"

namespace emo {

// What an observer works with.
struct Observation {
  Stepper* stepper;
  double seconds_per_step;  // on this rank, the mean of this run's steps but the first, which
                            // allocates; of that one where there is no other
  bool is_first;            // there is no other
  EvaluationSize* size;     // the observer's, kept in checkpoints
};

// Called on every rank after each eval.every steps, and the last; what evaluation hangs into
// training without train/ knowing it. Collective; every rank gets the same status. Answers what
// goes into the step's metrics.
using Observer = std::function<absl::StatusOr<Metrics>(const Observation&)>;

enum class RunEnd { kDone, kStopped };

struct RunOutcome {
  RunEnd end;
  std::string checkpoint;  // the run's newest; "" where it was stopped before it had one
};

struct TrainOptions {
  bool show_progress = true;
  Observer observer;
};

// How a checkpoint of this run describes its model.
ModelDescription describe(const RunConfig& config, const ChunkSource& source);

// Collective; every rank gets the same answer. Starts the run, or goes on where its folder has a
// checkpoint. Aborted where a loss or gradient is not finite, naming step and tensor;
// FailedPrecondition where the config does not fit the checkpoint.
absl::StatusOr<RunOutcome> train(const RunConfig& config, const Mesh& mesh,
                                 const TrainOptions& options);

}  // namespace emo
