#include "train/training_step.h"

#include <ATen/ops/from_blob.h>

#include <cmath>

#include "parallel/buffers.h"
#include "parallel/sharding.h"

namespace emo {

TrainingState::TrainingState(const ModelConfig& config, const RoutingContract& contract,
                             int64_t sequence_length, const GridPosition& position)
    : model(config, contract, position),
      gradients(model),
      optimizer(make_optimizer_state(model.layout)),
      rope(sequence_length, config.head_dim(), config.rope_theta),
      balance(config.moe_layers(), config.moe_layers() > 0 ? config.routed_experts() : 0,
              contract.balance_scope) {}

bool StepResult::finite() const {
  return std::isfinite(sums.cross_entropy) && std::isfinite(gradient_norm);
}

namespace {

void start_reduction(const Mesh& mesh, const ParameterLayout& layout, size_t bucket,
                     const FlatBuffers& gradients, PendingBuckets* reductions) {
  reductions->add(bucket,
                  reduce_scatter_bucket(*mesh.world, layout.dense, bucket, gradients.dense));
  reductions->add(bucket,
                  reduce_scatter_bucket(*mesh.dp, layout.experts, bucket, gradients.experts));
}

void start_gathering(const Mesh& mesh, const ParameterLayout& layout, size_t bucket,
                     const FlatBuffers& buffers, PendingBuckets* updates) {
  updates->add(bucket, all_gather_bucket(*mesh.world, layout.dense, bucket, buffers.dense));
  updates->add(bucket, all_gather_bucket(*mesh.dp, layout.experts, bucket, buffers.experts));
}

}  // namespace

StepResult compute_gradients(const Mesh& mesh, const std::vector<SlicedBatch>& micro_batches,
                             int64_t divisor_share, const StepOptions& options,
                             TrainingState* state) {
  const Model& model = state->model;
  const FlatBuffers& gradients = state->gradients.buffers;
  mesh.world->all_reduce(at::from_blob(&divisor_share, {1}, at::kLong), ReduceOp::kSum);
  const LossOptions loss{static_cast<double>(divisor_share), options.lm_z_weight};
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.seed = options.seed;
  pass.mode = options.exchange;
  pass.pool = model.contract.pool;
  pass.recompute = options.recompute;
  pass.precision = options.precision;
  pass.profile = options.profile;

  StepResult result;
  result.divisor = loss.divisor;
  result.sums = make_loss_sums(model.config.moe_layers(), model.layout.placement.experts);
  Timed timed(options.profile, Work::kOther);
  zero_buffer(gradients.dense);
  zero_buffer(gradients.experts);
  timed.pause();
  state->balance.start_step();
  std::vector<ExchangeCounters>& traffic = state->memory.buffers.traffic;
  traffic.assign(model.config.n_layers, {});
  PendingBuckets reductions;
  pass.before_parameters = [&](size_t bucket) {
    const Timed waiting(options.profile, Work::kExchange);
    state->updates.wait(bucket);
  };
  for (size_t m = 0; m < micro_batches.size(); ++m) {
    if (m + 1 == micro_batches.size()) {  // the last to add to the gradients
      pass.after_gradients = [&](size_t bucket) {
        const Timed sending(options.profile, Work::kExchange);
        // Two on their way at a time: each needs memory as large as itself until it is added up.
        if (bucket + 2 <= model.layout.head_bucket()) reductions.wait(bucket + 2);
        start_reduction(mesh, model.layout, bucket, gradients, &reductions);
      };
    }
    forward_backward(model, state->rope, micro_batches[m], pass, loss, *mesh.world, &state->balance,
                     &state->gradients, &result.sums, &state->memory);
  }
  timed.switch_to(Work::kExchange);
  reductions.wait_all();
  all_reduce_sums(*mesh.world, &result.sums);
  if (options.want_exchange && mesh.ep->size() > 1) {
    result.exchange = gather_counters(*mesh.world, traffic);
  }
  timed.switch_to(Work::kOptimizer);
  result.gradient_norm = gradient_norm(mesh, model.layout, gradients);
  return result;
}

StepResult training_step(const Mesh& mesh, const std::vector<SlicedBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state) {
  StepResult result = compute_gradients(mesh, micro_batches, divisor_share, options, state);
  if (!result.finite()) return result;
  Timed timed(options.profile, Work::kOptimizer);
  const Model& model = state->model;
  adamw_step(model.layout, options.adamw, options.learning_rate,
             clip_factor(result.gradient_norm, options.clip), state->gradients.buffers,
             model.parameters, &state->optimizer, [&](size_t bucket) {
               timed.switch_to(Work::kExchange);
               start_gathering(mesh, model.layout, bucket, model.parameters, &state->updates);
               timed.switch_to(Work::kOptimizer);
             });
  return result;
}

void gather_gradients(const Mesh& mesh, TrainingState* state) {
  all_gather_buckets(*mesh.world, state->model.layout.dense, state->gradients.buffers.dense);
  all_gather_buckets(*mesh.dp, state->model.layout.experts, state->gradients.buffers.experts);
}

void wait_for_parameters(TrainingState* state) { state->updates.wait_all(); }

}  // namespace emo
