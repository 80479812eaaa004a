#include "train/step/training_step.h"

#include <ATen/ops/from_blob.h>

#include <cmath>

#include "parallel/sharding.h"

namespace emo {

TrainingState::TrainingState(const ModelConfig& config, const RoutingContract& contract,
                             int64_t sequence_length, const GridPosition& position,
                             const StateOptions& options)
    : model(config, contract, position, options.order),
      gradients(model, options.gradients),
      owned_gradients(make_owned_gradients(model.layout, gradients)),
      trained(trained_parts(config, model.layout, options.freeze)),
      optimizer(make_optimizer_state(model.layout)),
      rope(sequence_length, config.head_dim(), config.rope_theta),
      balance(config.moe_layers(), config.routed_experts(), contract.balance_scope) {}

bool StepResult::finite() const {
  return std::isfinite(sums.cross_entropy) && std::isfinite(gradient_norm);
}

namespace {

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
  result.sums = make_loss_sums(model.config.moe_layers(), model.config.routed_experts());
  state->balance.start_step();
  std::vector<ExchangeCounters>& traffic = state->memory.buffers.traffic;
  traffic.assign(model.config.n_layers, {});
  int64_t passes = 0;
  for (const SlicedBatch& slices : micro_batches) passes += static_cast<int64_t>(slices.size());
  GradientReduction reduction(mesh, model.layout, state->gradients, state->owned_gradients, passes);
  const auto timed_exchange = [&](const auto& work) {
    return [&options, work](size_t bucket) {
      const Timed timed(options.profile, Work::kExchange);
      work(bucket);
    };
  };
  pass.before_parameters = timed_exchange([&](size_t bucket) { state->updates.wait(bucket); });
  pass.before_gradients = [&](size_t bucket) {
    const Timed timed(options.profile, Work::kExchange);
    return reduction.before(bucket);
  };
  pass.after_gradients = timed_exchange([&](size_t bucket) { reduction.after(bucket); });
  for (const SlicedBatch& slices : micro_batches) {
    forward_backward(model, state->rope, slices, pass, loss, *mesh.world, &state->balance,
                     &state->gradients, &result.sums, &state->memory);
  }
  Timed timed(options.profile, Work::kExchange);
  reduction.finish();
  all_reduce_sums(*mesh.world, &result.sums);
  if (options.want_exchange && mesh.ep->size() > 1) {
    result.exchange = gather_counters(*mesh.world, traffic);
  }
  timed.switch_to(Work::kOptimizer);
  result.gradient_norm = gradient_norm(mesh, model.layout, state->trained, state->owned_gradients);
  return result;
}

StepResult training_step(const Mesh& mesh, const std::vector<SlicedBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state) {
  StepResult result = compute_gradients(mesh, micro_batches, divisor_share, options, state);
  if (!result.finite()) return result;
  Timed timed(options.profile, Work::kOptimizer);
  const Model& model = state->model;
  adamw_step(model.layout, state->trained, options.adamw, options.learning_rate,
             clip_factor(result.gradient_norm, options.clip), state->owned_gradients,
             model.parameters, &state->optimizer, [&](size_t bucket) {
               timed.switch_to(Work::kExchange);
               start_gathering(mesh, model.layout, bucket, model.parameters, &state->updates);
               timed.switch_to(Work::kOptimizer);
             });
  return result;
}

FlatBuffers gather_gradients(const Mesh& mesh, TrainingState* state) {
  return gather_owned(mesh, state->model.layout, state->owned_gradients);
}

void wait_for_parameters(TrainingState* state) { state->updates.wait_all(); }

}  // namespace emo
