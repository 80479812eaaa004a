// One optimizer step on the CPU, from micro-batches to updated parameters: the parts of
// step_parts.h.
#pragma once

#include <cstdint>
#include <vector>

#include "model/transformer.h"
#include "parallel/mesh.h"
#include "train/optimizer/optimizer.h"
#include "train/step/gradient_reduction.h"
#include "train/step/step_parts.h"

namespace emo {

struct StateOptions {
  ExpertOrder order = {};  // in which ranks hold the experts
  GradientMemory gradients = GradientMemory::kWhole;
  Freeze freeze = Freeze::kNone;
};

// Everything that a step reads and changes on this rank.
struct TrainingState {
  Model model;
  Gradients gradients;
  FlatBuffers owned_gradients;  // see make_owned_gradients()
  TrainedParts trained;
  OptimizerState optimizer;
  BalanceCounts balance;
  PassMemory memory;
  PendingBuckets updates;  // parameters that other ranks updated, on their way

  TrainingState(const ModelConfig& config, const RoutingContract& contract, int64_t sequence_length,
                const GridPosition& position, const StateOptions& options = {});
};

// Collective. Leaves the gradients of the whole step in state->owned_gradients: on each rank what
// it owns, summed over all ranks while the backward passes ran. `divisor_share` is this rank's part
// of N (batch_tensors.h), over all micro-batches.
StepResult compute_gradients(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                             int64_t divisor_share, const StepOptions& options,
                             TrainingState* state);

// Collective. The gradients of all ranks as whole buffers in the model's layout, for what looks at
// all of them.
FlatBuffers gather_gradients(const Mesh& mesh, TrainingState* state);

// Collective: compute_gradients, clip, update. Where the result is not finite nothing is updated,
// on any rank. The updated parameters are still travelling when it returns; the next step waits for
// each as it needs it, everything else calls wait_for_parameters() first.
StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state);

// Local. After this, state->model holds the updated parameters.
void wait_for_parameters(TrainingState* state);

}  // namespace emo
