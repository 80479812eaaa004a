#include "train/training_step.h"

#include <ATen/ops/from_blob.h>

#include <cmath>

#include "parallel/buffers.h"
#include "parallel/gradient_reduction.h"

namespace emo {

TrainingState::TrainingState(const ModelConfig& config, const RoutingContract& contract,
                             int64_t sequence_length, int64_t ep, int64_t ep_rank)
    : model(config, contract, ep, ep_rank),
      gradients(model),
      optimizer(make_optimizer_state(model.layout)),
      rope(sequence_length, config.head_dim(), config.rope_theta),
      balance(config.moe_layers(), config.moe_layers() > 0 ? config.routed_experts() : 0,
              contract.balance_scope) {}

bool StepResult::finite() const {
  return std::isfinite(sums.cross_entropy) && std::isfinite(gradient_norm);
}

StepResult compute_gradients(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                             int64_t divisor_share, const StepOptions& options,
                             TrainingState* state) {
  const Model& model = state->model;
  mesh.world->all_reduce(at::from_blob(&divisor_share, {1}, at::kLong), ReduceOp::kSum);
  const LossOptions loss{static_cast<double>(divisor_share), options.lm_z_weight};
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.seed = options.seed;
  pass.mode = options.exchange;
  pass.pool = model.contract.pool;
  pass.recompute = options.recompute;
  pass.profile = options.profile;

  StepResult result;
  result.divisor = loss.divisor;
  result.sums = make_loss_sums(model.config.moe_layers(), model.layout.placement.experts);
  Timed timed(options.profile, Work::kOther);
  zero_buffer(state->gradients.buffers.dense);
  zero_buffer(state->gradients.buffers.experts);
  timed.pause();
  state->balance.start_step();
  for (const MicroBatch& batch : micro_batches) {
    forward_backward(model, state->rope, batch, pass, loss, *mesh.world, &state->balance,
                     &state->gradients, &result.sums, &state->activations);
  }
  timed.switch_to(Work::kExchange);
  reduce_gradients(mesh, state->gradients.buffers.dense, state->gradients.buffers.experts);
  all_reduce_sums(*mesh.world, &result.sums);
  timed.switch_to(Work::kOptimizer);
  result.gradient_norm = gradient_norm(mesh, state->gradients.buffers);
  return result;
}

StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state) {
  StepResult result = compute_gradients(mesh, micro_batches, divisor_share, options, state);
  if (!result.finite()) return result;
  const Timed timed(options.profile, Work::kOptimizer);
  adamw_step(state->model.layout, options.adamw, options.learning_rate,
             clip_factor(result.gradient_norm, options.clip), state->gradients.buffers,
             state->model.parameters, &state->optimizer);
  return result;
}

}  // namespace emo
