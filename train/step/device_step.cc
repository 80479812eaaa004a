#include "train/step/device_step.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <utility>

#include "model/device/kernels/adamw.h"
#include "parallel/sharding.h"

namespace emo {
namespace {

FlatBuffers owned_zeros(const ParameterLayout& layout, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  return {at::zeros({layout.dense.owned_size()}, options),
          at::zeros({layout.experts.owned_size()}, options)};
}

// The two buffers of a bucket: the ranks that share each, its sharding, and what is trained of it.
struct Half {
  Communicator* group;
  const Sharding* sharding;
  at::Tensor FlatBuffers::*buffer;
  const std::vector<Span>* trained;
};
std::vector<Half> halves(const Mesh& mesh, const DeviceState& state) {
  const ParameterLayout& layout = state.model.layout;
  return {{mesh.world.get(), &layout.dense, &FlatBuffers::dense, &state.trained.dense},
          {mesh.dp.get(), &layout.experts, &FlatBuffers::experts, &state.trained.experts}};
}

// A span of this rank's part of a bucket, in a buffer that is whole or holds owned parts side by
// side.
at::Tensor part(const Half& half, size_t bucket, const Span& span, const at::Tensor& buffer) {
  const int64_t begin = half.sharding->begin_in(bucket, buffer);
  return buffer.slice(0, begin + span.begin, begin + span.end);
}

// f64 [1]: the squares of what this rank owns of the gradients and trains.
at::Tensor owned_squares(const Mesh& mesh, const DeviceState& state) {
  const auto options = state.model.gradients.dense.options().dtype(at::kDouble);
  std::vector<at::Tensor> partials = {at::zeros({1}, options)};
  for (const Half& half : halves(mesh, state)) {
    for (size_t bucket = 0; bucket < half.sharding->buckets.size(); ++bucket) {
      for (const Span& span : trained_of_part(*half.sharding, bucket, *half.trained)) {
        const at::Tensor gradient = part(half, bucket, span, state.owned_gradients.*half.buffer);
        const int64_t blocks =
            (gradient.numel() + device::kSquaresBlock - 1) / device::kSquaresBlock;
        partials.push_back(at::empty({blocks}, options));
        device::block_squares(gradient, partials.back());
      }
    }
  }
  return at::sum(at::cat(partials)).view({1});
}

// Updates what this rank owns, a bucket at a time, and sends each on its way.
void update_parameters(const Mesh& mesh, const StepOptions& options, const at::Tensor& control,
                       DeviceState* state) {
  device::DeviceModel& model = state->model;
  DeviceOptimizer& optimizer = state->optimizer;
  ++optimizer.step;
  for (size_t bucket = 0; bucket < model.layout.dense.buckets.size(); ++bucket) {
    const AdamWFactors factors = adamw_factors(options.adamw, options.learning_rate, optimizer.step,
                                               bucket != kEmbeddingBucket);
    for (const Half& half : halves(mesh, *state)) {
      const at::Tensor& parameters = model.parameters.*half.buffer;
      const at::Tensor& masters = optimizer.master.*half.buffer;
      const bool has_master = masters.defined();
      for (const Span& span : trained_of_part(*half.sharding, bucket, *half.trained)) {
        const auto here = [&](const at::Tensor& buffer) {
          return part(half, bucket, span, buffer);
        };
        device::adamw(factors, control, here(state->owned_gradients.*half.buffer),
                      here(has_master ? masters : parameters), here(optimizer.exp_avg.*half.buffer),
                      here(optimizer.exp_avg_sq.*half.buffer),
                      has_master ? here(parameters) : at::Tensor());
      }
      state->updates.add(bucket,
                         all_gather_bucket(*half.group, *half.sharding, bucket, parameters));
    }
  }
}

class DeviceStep : public StepParts {
 public:
  DeviceStep(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
             const StepOptions& options, DeviceState* state)
      : mesh_(mesh),
        micro_batches_(micro_batches),
        options_(options),
        state_(*state),
        reduction_(mesh, state->model.layout,
                   {state->model.gradient_layout, state->model.gradients}, state->owned_gradients,
                   passes_of(micro_batches)) {}

  void begin(double divisor) override {
    pass_.ep = mesh_.ep.get();
    pass_.world = mesh_.world.get();
    pass_.loss = {divisor, options_.lm_z_weight};
    pass_.settings = options_.pass;
    pass_.before_parameters = [this](size_t bucket) { state_.updates.wait(bucket); };
    pass_.before_gradients = [this](size_t bucket) { return reduction_.before(bucket); };
    pass_.after_gradients = [this](size_t bucket) { reduction_.after(bucket); };
    result_.divisor = divisor;
    traffic_.assign(state_.model.config.n_layers, {});
    state_.balance.start_step();
    state_.sums.all().zero_();
  }

  void accumulate(size_t m) override {
    device::DeviceModel& model = state_.model;
    std::vector<device::DeviceSlice> slices;
    for (const Slice& slice : micro_batches_[m]) {
      slices.push_back(device::make_device_slice(slice, model.config, model.contract, options_.pass,
                                                 model.positions(), model.device));
    }
    device::forward_backward(&model, slices, pass_, &state_.balance, &state_.sums, &traffic_);
  }

  void reduce() override {
    reduction_.finish();
    // One all-reduce for everything that the step adds up.
    totals_ = at::cat({state_.sums.all(), owned_squares(mesh_, state_)});
    mesh_.world->all_reduce(totals_, ReduceOp::kSum);
    if (options_.want_exchange && mesh_.ep->size() > 1) {
      result_.exchange = gather_counters(*mesh_.world, traffic_);
    }
  }

  void clip() override {
    control_ = at::empty({2}, totals_.options().dtype(at::kFloat));
    device::clip_control(totals_, totals_.slice(0, squares()), options_.clip, control_);
  }

  void update() override {
    update_parameters(mesh_, options_, control_, &state_);
    updated_ = true;
  }

  StepResult result() override {
    const at::Tensor host = totals_.cpu();  // waits for the device
    result_.sums = state_.sums.read(host.slice(0, 0, squares()));
    result_.gradient_norm = std::sqrt(host.const_data_ptr<double>()[squares()]);
    if (updated_ && !result_.finite()) --state_.optimizer.step;  // nothing was
    return std::move(result_);
  }

 private:
  int64_t squares() const { return totals_.numel() - 1; }

  const Mesh& mesh_;
  const std::vector<MicroBatch>& micro_batches_;
  const StepOptions& options_;
  DeviceState& state_;
  PassOptions pass_;
  GradientReduction reduction_;
  // f64 on the device, over all ranks: state_.sums, then the squares of all gradients, each counted
  // once.
  at::Tensor totals_;
  at::Tensor control_;                     // see clip_control()
  std::vector<ExchangeCounters> traffic_;  // [L]
  bool updated_ = false;
  StepResult result_;
};

}  // namespace

DeviceState::DeviceState(const ModelConfig& config, const RoutingContract& contract,
                         int64_t sequence_length, const GridPosition& position, at::Device device,
                         at::ScalarType type, const StateOptions& options)
    : model(config, contract, position, sequence_length, device, type, options.order,
            options.gradients),
      balance(config.moe_layers(), config.routed_experts(), contract.balance_scope, device),
      sums(config.moe_layers(), config.routed_experts(), device),
      owned_gradients(make_owned_gradients(model.layout, {model.gradient_layout, model.gradients})),
      trained(trained_parts(config, model.layout, options.freeze)) {
  if (type != at::kFloat) optimizer.master = owned_zeros(model.layout, device);
  optimizer.exp_avg = owned_zeros(model.layout, device);
  optimizer.exp_avg_sq = owned_zeros(model.layout, device);
}

StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, DeviceState* state) {
  DeviceStep step(mesh, micro_batches, options, state);
  return take_step(*mesh.world, micro_batches.size(), divisor_share, &step);
}

void wait_for_parameters(DeviceState* state) { state->updates.wait_all(); }

void copy_to_host(const Mesh& mesh, DeviceState* state, Model* host, OptimizerState* optimizer) {
  wait_for_parameters(state);
  for (const Half& half : halves(mesh, *state)) {
    const at::Tensor& master = state->optimizer.master.*half.buffer;
    const at::Tensor& parameters = host->parameters.*half.buffer;
    if (master.defined()) {
      put_owned_parts(*half.sharding, master.cpu(), parameters);
      all_gather_buckets(*half.group, *half.sharding, parameters);
    } else {
      parameters.copy_(state->model.parameters.*half.buffer);
    }
  }
  optimizer->step = state->optimizer.step;
  for (const auto buffer : {&FlatBuffers::dense, &FlatBuffers::experts}) {
    (optimizer->exp_avg.*buffer).copy_(state->optimizer.exp_avg.*buffer);
    (optimizer->exp_avg_sq.*buffer).copy_(state->optimizer.exp_avg_sq.*buffer);
  }
}

void copy_from_host(const Model& host, const OptimizerState& optimizer, DeviceState* state) {
  device::DeviceModel& model = state->model;
  wait_for_parameters(state);
  device::load_parameters(host.parameters, &model);
  DeviceOptimizer& to = state->optimizer;
  to.step = optimizer.step;
  for (const auto& [sharding, buffer] : {std::pair(&model.layout.dense, &FlatBuffers::dense),
                                         std::pair(&model.layout.experts, &FlatBuffers::experts)}) {
    if ((to.master.*buffer).defined())
      (to.master.*buffer).copy_(owned_parts(*sharding, host.parameters.*buffer));
    (to.exp_avg.*buffer).copy_(optimizer.exp_avg.*buffer);
    (to.exp_avg_sq.*buffer).copy_(optimizer.exp_avg_sq.*buffer);
  }
}

}  // namespace emo
