// How a run begins: fresh, from another run's checkpoint, or where it was stopped.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "data/rows/chunk_source.h"
#include "parallel/mesh.h"
#include "train/checkpoint/checkpoint.h"
#include "train/config/run_config.h"
#include "train/step/training_step.h"

namespace emo {

// The order that parallel.placement names; empty, by number, where it names none.
absl::StatusOr<ExpertOrder> placement_of_config(const RunConfig& config);

// What a run begins with.
struct RunOrigin {
  std::string checkpoint;  // "": initial weights
  bool resumes = false;    // the checkpoint is the run's own
};

// Collective; every rank gets the same answer: the first one looks into run.folder. To be called
// once, before anything is written there.
absl::StatusOr<RunOrigin> find_origin(const RunConfig& config, const Mesh& mesh);

// Collective; every rank gets the same answer. The order in which the run's ranks hold experts:
// parallel.placement's, or what the checkpoint that the run begins with carries.
absl::StatusOr<ExpertOrder> expert_order_for_run(const RunConfig& config, const RunOrigin& origin,
                                                 const Mesh& mesh);

struct RunStart {
  TrainingPosition position;  // where to go on
  std::string pruning;        // of a cut model: pruning_metadata.json, else ""
};

// Collective; every rank gets the same position. Fills the model and its optimizer state.
//   - a checkpoint in run.folder: goes on there; FailedPrecondition, with a list, where config or
//     data differ in a way that matters
//   - run.start_from: takes what run.take says; the routing contract must be equal unless
//     run.change_contract
//   - else: initial weights
// DataLoss where the checkpoint is broken. REQUIRES: model and optimizer are of this config, laid
// out in expert_order_for_run()'s order; the optimizer's moments are zero.
absl::StatusOr<RunStart> start_run(const RunConfig& config, const RunOrigin& origin,
                                   const ChunkSource& source, const Mesh& mesh, Model* model,
                                   OptimizerState* optimizer);

// Collective; every rank gets the same answer. Fills the model with the weights that a new run
// would begin with, run.start_from's or initial ones, whatever lies in run.folder. Errors as
// start_run()'s.
absl::Status start_weights(const RunConfig& config, const Mesh& mesh, Model* model);

}  // namespace emo
