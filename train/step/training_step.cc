#include "train/step/training_step.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <cmath>

#include "parallel/sharding.h"
#include "train/optimizer/selection_bias.h"

namespace emo {
namespace {

// Backward passes of a step: one for each slice.
int64_t passes_of(const std::vector<MicroBatch>& micro_batches) {
  int64_t passes = 0;
  for (const MicroBatch& slices : micro_batches) passes += static_cast<int64_t>(slices.size());
  return passes;
}

// Collective. What the losses of the step are divided by; its pass has them.
LossOptions losses_of(Communicator& world, const std::vector<MicroBatch>& micro_batches,
                      int64_t divisor_share, double lm_z_weight) {
  std::array<int64_t, 2> shares = {divisor_share, 0};
  for (const MicroBatch& slices : micro_batches) {
    for (const Slice& slice : slices) shares[1] += slice.sequence_index.numel();
  }
  world.all_reduce(at::from_blob(shares.data(), {2}, at::kLong), ReduceOp::kSum);
  return {static_cast<double>(shares[0]), lm_z_weight, static_cast<double>(shares[1])};
}

PassOptions pass_of(const Mesh& mesh, const LossOptions& losses, const StepOptions& options,
                    TrainingState* state, GradientReduction* reduction) {
  Profile* profile = options.profile;
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.world = mesh.world.get();
  pass.settings = options.pass;
  pass.loss = losses;
  pass.profile = profile;
  pass.before_parameters = [=](size_t bucket) {
    const Timed timed(profile, Work::kExchange);
    state->updates.wait(bucket);
  };
  pass.before_gradients = [=](size_t bucket) {
    const Timed timed(profile, Work::kExchange);
    return reduction->before(bucket);
  };
  pass.after_gradients = [=](size_t bucket) {
    const Timed timed(profile, Work::kExchange);
    reduction->after(bucket);
  };
  return pass;
}

// What a step adds up over all ranks, where the model computes: f64, the numbers of state.sums,
// then the squares of all gradients, each counted once, on its owner.
struct StepTotals {
  at::Tensor all;
  double divisor = 0;
  std::vector<std::vector<ExchangeCounters>> exchange;
  int64_t num_sums() const { return all.numel() - 1; }
  at::Tensor squares() const { return all.slice(0, num_sums()); }
};

// The forward and backward passes of all micro-batches, then one all-reduce for everything that the
// step adds up.
StepTotals add_up(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                  int64_t divisor_share, const StepOptions& options, TrainingState* state) {
  const Gradients& gradients = state->gradients;
  std::vector<ExchangeCounters>& traffic = state->memory.buffers.traffic;
  StepTotals totals;
  const LossOptions losses =
      losses_of(*mesh.world, micro_batches, divisor_share, options.lm_z_weight);
  totals.divisor = losses.divisor;
  GradientReduction reduction(mesh, state->model.layout, {gradients.layout, gradients.buffers},
                              state->owned_gradients, passes_of(micro_batches));
  const PassOptions pass = pass_of(mesh, losses, options, state, &reduction);
  traffic.assign(state->model.config.n_layers, {});
  state->balance.start_step();
  state->sums.all().zero_();
  for (const MicroBatch& slices : micro_batches) {
    forward_backward(state->model, slices, pass, &state->balance, &state->memory, gradients,
                     state->sums);
  }

  Timed timed(options.profile, Work::kExchange);
  reduction.finish();
  timed.switch_to(Work::kOptimizer);
  totals.all = at::cat(
      {state->sums.all(), gradient_squares(state->model, state->trained, state->owned_gradients)});
  timed.switch_to(Work::kExchange);
  mesh.world->all_reduce(totals.all, ReduceOp::kSum);
  if (options.want_exchange && mesh.ep->size() > 1) {
    totals.exchange = gather_counters(*mesh.world, traffic);
  }
  return totals;
}

// Moves what this rank owns of a bucket's selection bias, where it has one.
void move_bias(size_t bucket, const StepTotals& totals, const at::Tensor& control,
               TrainingState* state) {
  const ModelConfig& config = state->model.config;
  const auto layer = static_cast<int64_t>(bucket) - static_cast<int64_t>(layer_bucket(0));
  if (!config.selection_bias || !state->trained.selection_biases || layer < 0 ||
      layer >= config.n_layers || config.is_dense(layer)) {
    return;
  }
  int64_t moe_layer = 0;
  for (int64_t before = 0; before < layer; ++before) moe_layer += config.is_dense(before) ? 0 : 1;
  update_selection_bias(
      layer, state->sums.counts(totals.all, moe_layer, config.routed_experts(layer)),
      {state->model.contract.bias_rate, control}, &state->model, &state->optimizer);
}

// Changes what this rank owns of the parameters, a bucket at a time, and sends each on its way.
void update(const Mesh& mesh, const StepTotals& totals, const StepOptions& options,
            TrainingState* state) {
  Timed timed(options.profile, Work::kOptimizer);
  Model& model = state->model;
  AdamWUpdate update{options.adamw, options.learning_rate, {}};
  model.backend->clip_control(totals.all, totals.squares(), options.clip, &update.control);
  adamw_step(state->trained, update, state->owned_gradients, &model, &state->optimizer,
             [&](size_t bucket) {
               move_bias(bucket, totals, update.control, state);
               timed.switch_to(Work::kExchange);
               state->updates.add(bucket, all_gather_bucket(*mesh.world, model.layout.dense, bucket,
                                                            model.parameters.dense));
               state->updates.add(bucket, all_gather_bucket(*mesh.dp, model.layout.experts, bucket,
                                                            model.parameters.experts));
               timed.switch_to(Work::kOptimizer);
             });
}

// Waits for the device.
StepResult result_of(StepTotals totals, const StepSums& sums) {
  const at::Tensor host = totals.all.cpu();
  StepResult result;
  result.sums = sums.read(host.slice(0, 0, totals.num_sums()));
  result.divisor = totals.divisor;
  result.gradient_norm = std::sqrt(host.const_data_ptr<double>()[totals.num_sums()]);
  result.exchange = std::move(totals.exchange);
  return result;
}

}  // namespace

bool StepResult::finite() const {
  return std::isfinite(sums.cross_entropy) && std::isfinite(gradient_norm);
}

TrainingState::TrainingState(const ModelConfig& config, const RoutingContract& contract,
                             int64_t sequence_length, const GridPosition& position,
                             const StateOptions& options)
    : model(config, contract, sequence_length, position, options.order, options.backend),
      gradients(model, options.gradients),
      owned_gradients(make_owned_gradients(model.layout, {gradients.layout, gradients.buffers})),
      trained(trained_parts(config, model.layout, options.freeze)),
      optimizer(make_optimizer_state(model)),
      balance(config.moe_layers(), config.routed_experts(), contract.balance_scope, model.device()),
      sums(config.moe_layers(), config.routed_experts(), model.device()) {}

StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state) {
  StepTotals totals = add_up(mesh, micro_batches, divisor_share, options, state);
  update(mesh, totals, options, state);
  StepResult result = result_of(std::move(totals), state->sums);
  if (!result.finite()) --state->optimizer.step;  // nothing was updated
  return result;
}

FlatBuffers gather_gradients(const Mesh& mesh, TrainingState* state) {
  return gather_owned(mesh, state->model.layout, state->owned_gradients);
}

void wait_for_parameters(TrainingState* state) { state->updates.wait_all(); }

}  // namespace emo
