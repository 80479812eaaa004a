// One optimizer step, from micro-batches to updated parameters, on the host or a device: what
// computes is the model's back end.
//
// Parameters are fp32, or on a device bf16; gradients, their reduction, masters and moments are
// fp32. On a device the host waits for it in the expert exchange's counts and once at the end of a
// step, for its sums.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/losses.h"
#include "model/micro_batch.h"
#include "model/pass.h"
#include "model/transformer.h"
#include "parallel/expert_exchange.h"
#include "parallel/mesh.h"
#include "train/optimizer/optimizer.h"
#include "train/step/gradient_reduction.h"

namespace emo {

struct StepOptions {
  double learning_rate = 0;
  double lm_z_weight = 1e-5;
  double clip = 1.0;  // 0: off
  AdamWOptions adamw;
  PassSettings pass;
  bool want_exchange = false;  // StepResult::exchange, where experts are spread over ranks
  Profile* profile = nullptr;
};

struct StepResult {
  LossSums sums;                                        // of all ranks and micro-batches
  double divisor = 0;                                   // N
  double gradient_norm = 0;                             // before clipping
  std::vector<std::vector<ExchangeCounters>> exchange;  // by rank and layer, where wanted
  double cross_entropy() const { return sums.cross_entropy / divisor; }
  double z_loss(double weight) const { return weight * sums.z_squares / divisor; }
  bool finite() const;
};

struct StateOptions {
  ExpertOrder order = {};  // in which ranks hold the experts
  GradientMemory gradients = GradientMemory::kWhole;
  Freeze freeze = Freeze::kNone;
  std::shared_ptr<Backend> backend = nullptr;  // null: the host's
};

// Everything that a step reads and changes on this rank.
struct TrainingState {
  Model model;
  Gradients gradients;
  FlatBuffers owned_gradients;  // see make_owned_gradients()
  TrainedParts trained;
  OptimizerState optimizer;
  BalanceCounts balance;
  StepSums sums;
  PassMemory memory;
  PendingBuckets updates;  // parameters that other ranks updated, on their way

  TrainingState(const ModelConfig& config, const RoutingContract& contract, int64_t sequence_length,
                const GridPosition& position, const StateOptions& options = {});
};

// Collective. The gradients of all ranks as whole buffers in the model's layout, where it computes,
// for what looks at all of them.
FlatBuffers gather_gradients(const Mesh& mesh, TrainingState* state);

// Collective over `mesh`, whose communicators serve the model's tensors: gradients, clip, update.
// `divisor_share` is this rank's part of N (batch_tensors.h), over all micro-batches. The gradients
// of the whole step stay in state->owned_gradients: on each rank what it owns, summed over all
// ranks while the backward passes ran.
//
// Where the result is not finite nothing is updated, on any rank. The updated parameters are still
// travelling when it returns; the next step waits for each as it needs it, everything else calls
// wait_for_parameters() first.
StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state);

// Local. After this, state->model holds the updated parameters.
void wait_for_parameters(TrainingState* state);

}  // namespace emo
