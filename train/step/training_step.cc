#include "train/step/training_step.h"

#include <utility>

#include "parallel/sharding.h"

namespace emo {

TrainingState::TrainingState(const ModelConfig& config, const RoutingContract& contract,
                             int64_t sequence_length, const GridPosition& position,
                             const StateOptions& options)
    : model(config, contract, sequence_length, position, options.order),
      gradients(model, options.gradients),
      owned_gradients(make_owned_gradients(model.layout, {gradients.layout, gradients.buffers})),
      trained(trained_parts(config, model.layout, options.freeze)),
      optimizer(make_optimizer_state(model.layout)),
      balance(config.moe_layers(), config.routed_experts(), contract.balance_scope) {}

namespace {

class CpuStep : public StepParts {
 public:
  CpuStep(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
          const StepOptions& options, TrainingState* state)
      : mesh_(mesh),
        micro_batches_(micro_batches),
        options_(options),
        state_(*state),
        reduction_(mesh, state->model.layout, {state->gradients.layout, state->gradients.buffers},
                   state->owned_gradients, passes_of(micro_batches)) {}

  void begin(double divisor) override {
    const ModelConfig& config = state_.model.config;
    pass_.ep = mesh_.ep.get();
    pass_.world = mesh_.world.get();
    pass_.settings = options_.pass;
    pass_.loss = {divisor, options_.lm_z_weight};
    pass_.profile = options_.profile;
    pass_.before_parameters = [this](size_t bucket) {
      const Timed timed(options_.profile, Work::kExchange);
      state_.updates.wait(bucket);
    };
    pass_.before_gradients = [this](size_t bucket) {
      const Timed timed(options_.profile, Work::kExchange);
      return reduction_.before(bucket);
    };
    pass_.after_gradients = [this](size_t bucket) {
      const Timed timed(options_.profile, Work::kExchange);
      reduction_.after(bucket);
    };
    result_.divisor = divisor;
    result_.sums = make_loss_sums(config.moe_layers(), config.routed_experts());
    state_.balance.start_step();
    traffic().assign(config.n_layers, {});
  }

  void accumulate(size_t m) override {
    forward_backward(state_.model, micro_batches_[m], pass_, &state_.balance, &state_.memory,
                     &state_.gradients, &result_.sums);
  }

  void reduce() override {
    Timed timed(options_.profile, Work::kExchange);
    reduction_.finish();
    all_reduce_sums(*mesh_.world, &result_.sums);
    if (options_.want_exchange && mesh_.ep->size() > 1) {
      result_.exchange = gather_counters(*mesh_.world, traffic());
    }
    timed.switch_to(Work::kOptimizer);
    result_.gradient_norm =
        gradient_norm(mesh_, state_.model.layout, state_.trained, state_.owned_gradients);
  }

  void clip() override { scale_ = clip_factor(result_.gradient_norm, options_.clip); }

  void update() override {
    if (!result_.finite()) return;
    Timed timed(options_.profile, Work::kOptimizer);
    Model& model = state_.model;
    adamw_step(model.layout, state_.trained, {options_.adamw, options_.learning_rate, scale_},
               state_.owned_gradients, &model.parameters, &state_.optimizer, [&](size_t bucket) {
                 timed.switch_to(Work::kExchange);
                 send_updated(bucket);
                 timed.switch_to(Work::kOptimizer);
               });
  }

  StepResult result() override { return std::move(result_); }

 private:
  std::vector<ExchangeCounters>& traffic() { return state_.memory.buffers.traffic; }
  void send_updated(size_t bucket) {
    const ParameterLayout& layout = state_.model.layout;
    const FlatBuffers& buffers = state_.model.parameters;
    state_.updates.add(bucket,
                       all_gather_bucket(*mesh_.world, layout.dense, bucket, buffers.dense));
    state_.updates.add(bucket,
                       all_gather_bucket(*mesh_.dp, layout.experts, bucket, buffers.experts));
  }

  const Mesh& mesh_;
  const std::vector<MicroBatch>& micro_batches_;
  const StepOptions& options_;
  TrainingState& state_;
  GradientReduction reduction_;
  PassOptions pass_;
  StepResult result_;
  double scale_ = 1;  // of the gradients
};

}  // namespace

StepResult compute_gradients(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                             int64_t divisor_share, const StepOptions& options,
                             TrainingState* state) {
  CpuStep step(mesh, micro_batches, options, state);
  compute_gradients(*mesh.world, micro_batches.size(), divisor_share, &step);
  return step.result();
}

StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, TrainingState* state) {
  CpuStep step(mesh, micro_batches, options, state);
  return take_step(*mesh.world, micro_batches.size(), divisor_share, &step);
}

FlatBuffers gather_gradients(const Mesh& mesh, TrainingState* state) {
  return gather_owned(mesh, state->model.layout, state->owned_gradients);
}

void wait_for_parameters(TrainingState* state) { state->updates.wait_all(); }

}  // namespace emo
