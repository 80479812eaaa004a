// One optimizer step, from micro-batches to updated parameters.
#pragma once

#include <cstdint>
#include <vector>

#include "model/transformer.h"
#include "parallel/mesh.h"
#include "train/optimizer.h"

namespace emo {

// Everything that a step reads and changes on this rank.
struct TrainingState {
  Model model;
  Gradients gradients;
  OptimizerState optimizer;
  RopeTable rope;
  BalanceCounts balance;
  Activations activations;

  TrainingState(const ModelConfig& config, const RoutingContract& contract, int64_t sequence_length,
                int64_t ep, int64_t ep_rank);
};

struct StepOptions {
  double learning_rate = 0;
  double lm_z_weight = 1e-5;
  double clip = 1.0;  // 0: off
  AdamWOptions adamw;
  uint64_t seed = 0;  // of pool sizes
  ExchangeMode exchange = ExchangeMode::kOncePerRank;
  Recompute recompute = Recompute::kNone;
  Profile* profile = nullptr;
};

struct StepResult {
  LossSums sums;             // of all ranks and micro-batches
  double divisor = 0;        // N
  double gradient_norm = 0;  // before clipping
  double cross_entropy() const { return sums.cross_entropy / divisor; }
  double z_loss(double weight) const { return weight * sums.z_squares / divisor; }
  bool finite() const;
};

// Collective. Zeroes the gradients, then leaves those of the whole step in state->gradients, equal
// on all replicas. `divisor_share` is this rank's part of N (batch_tensors.h), over all
// micro-batches.
StepResult compute_gradients(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                             int64_t divisor_share, const StepOptions& options,
                             TrainingState* state);

// Collective: compute_gradients, clip, update. Where the result is not finite nothing is updated,
// on any rank.
StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state);

}  // namespace emo
