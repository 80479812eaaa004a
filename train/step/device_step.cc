#include "train/step/device_step.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "model/device/kernels/adamw.h"
#include "parallel/sharding.h"

namespace emo {
namespace {

FlatBuffers owned_zeros(const ParameterLayout& layout, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  return {at::zeros({layout.dense.owned_size()}, options),
          at::zeros({layout.experts.owned_size()}, options)};
}

// The two buffers of a bucket: the ranks that share each, and its sharding.
struct Half {
  Communicator* group;
  const Sharding* sharding;
  at::Tensor FlatBuffers::*buffer;
};
std::vector<Half> halves(const Mesh& mesh, const ParameterLayout& layout) {
  return {{mesh.world.get(), &layout.dense, &FlatBuffers::dense},
          {mesh.dp.get(), &layout.experts, &FlatBuffers::experts}};
}

at::Tensor part(const Sharding& sharding, size_t bucket, const at::Tensor& flat) {
  const int64_t begin = sharding.part_begin(bucket);
  return flat.slice(0, begin, begin + sharding.part_size(bucket));
}
at::Tensor owned_part(const Sharding& sharding, size_t bucket, const at::Tensor& owned) {
  const int64_t begin = sharding.owned_begin(bucket);
  return owned.slice(0, begin, begin + sharding.part_size(bucket));
}

// f64 [1]: the squares of what this rank owns of the gradients.
at::Tensor owned_squares(const Mesh& mesh, const device::DeviceModel& model) {
  std::vector<at::Tensor> partials;
  for (const Half& half : halves(mesh, model.layout)) {
    for (size_t bucket = 0; bucket < half.sharding->buckets.size(); ++bucket) {
      const at::Tensor gradient = part(*half.sharding, bucket, model.gradients.*half.buffer);
      const int64_t blocks = (gradient.numel() + device::kSquaresBlock - 1) / device::kSquaresBlock;
      partials.push_back(at::empty({blocks}, gradient.options().dtype(at::kDouble)));
      device::block_squares(gradient, partials.back());
    }
  }
  return at::sum(at::cat(partials)).view({1});
}

device::AdamWFactors factors_of(const AdamWOptions& options, double learning_rate, int64_t step,
                                bool decayed) {
  const auto t = static_cast<double>(step);
  return {static_cast<float>(options.beta1),
          static_cast<float>(options.beta2),
          static_cast<float>(options.epsilon),
          static_cast<float>(decayed ? 1 - learning_rate * options.weight_decay : 1.0),
          static_cast<float>(learning_rate / (1 - std::pow(options.beta1, t))),
          static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, t)))};
}

// Updates what this rank owns, a bucket at a time, and sends each on its way.
void update(const Mesh& mesh, const StepOptions& options, const at::Tensor& control,
            DeviceState* state) {
  device::DeviceModel& model = state->model;
  DeviceOptimizer& optimizer = state->optimizer;
  ++optimizer.step;
  for (size_t bucket = 0; bucket < model.layout.dense.buckets.size(); ++bucket) {
    const device::AdamWFactors factors = factors_of(options.adamw, options.learning_rate,
                                                    optimizer.step, bucket != kEmbeddingBucket);
    for (const Half& half : halves(mesh, model.layout)) {
      const Sharding& sharding = *half.sharding;
      const at::Tensor& parameters = model.parameters.*half.buffer;
      const at::Tensor parameter = part(sharding, bucket, parameters);
      const at::Tensor& masters = optimizer.master.*half.buffer;
      const bool has_master = masters.defined();
      device::adamw(factors, control, part(sharding, bucket, model.gradients.*half.buffer),
                    has_master ? owned_part(sharding, bucket, masters) : parameter,
                    owned_part(sharding, bucket, optimizer.exp_avg.*half.buffer),
                    owned_part(sharding, bucket, optimizer.exp_avg_sq.*half.buffer),
                    has_master ? parameter : at::Tensor());
      state->updates.add(bucket, all_gather_bucket(*half.group, sharding, bucket, parameters));
    }
  }
}

}  // namespace

DeviceState::DeviceState(const ModelConfig& config, const RoutingContract& contract,
                         int64_t sequence_length, const GridPosition& position, at::Device device,
                         at::ScalarType type, const ExpertOrder& order)
    : model(config, contract, position, sequence_length, device, type, order),
      balance(config.moe_layers(), model.routed_experts(), contract.balance_scope, device),
      sums(config.moe_layers(), model.routed_experts(), device),
      positions(sequence_length) {
  if (type != at::kFloat) optimizer.master = owned_zeros(model.layout, device);
  optimizer.exp_avg = owned_zeros(model.layout, device);
  optimizer.exp_avg_sq = owned_zeros(model.layout, device);
}

at::Tensor compute_gradients(const Mesh& mesh, const std::vector<SlicedBatch>& micro_batches,
                             double divisor, const StepOptions& options, DeviceState* state) {
  device::DeviceModel& model = state->model;
  device::DevicePass pass;
  pass.ep = mesh.ep.get();
  pass.world = mesh.world.get();
  pass.loss = {divisor, options.lm_z_weight};
  pass.recompute = options.recompute;
  model.gradients.dense.zero_();
  state->balance.start_step();
  state->sums.all().zero_();
  PendingBuckets reductions;
  pass.before_parameters = [&](size_t bucket) { state->updates.wait(bucket); };
  for (size_t m = 0; m < micro_batches.size(); ++m) {
    if (m + 1 == micro_batches.size()) {  // the last to add to the gradients
      pass.after_gradients = [&](size_t bucket) {
        for (const Half& half : halves(mesh, model.layout)) {
          reductions.add(bucket, reduce_scatter_bucket(*half.group, *half.sharding, bucket,
                                                       model.gradients.*half.buffer));
        }
      };
    }
    pass.onto_expert_gradients = m > 0;
    std::vector<device::DeviceBatch> slices;
    for (const MicroBatch& slice : micro_batches[m]) {
      slices.push_back(device::make_device_batch(slice, model.config, model.contract.pool,
                                                 model.contract.pool_draw, options.seed,
                                                 state->positions, model.device));
    }
    device::forward_backward(&model, slices, pass, &state->balance, &state->sums);
  }
  reductions.wait_all();
  // One all-reduce for everything that the step adds up.
  at::Tensor totals = at::cat({state->sums.all(), owned_squares(mesh, model)});
  mesh.world->all_reduce(totals, ReduceOp::kSum);
  return totals;
}

StepResult training_step(const Mesh& mesh, const std::vector<SlicedBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, DeviceState* state) {
  mesh.world->all_reduce(at::from_blob(&divisor_share, {1}, at::kLong), ReduceOp::kSum);
  StepResult result;
  result.divisor = static_cast<double>(divisor_share);
  const at::Tensor totals = compute_gradients(mesh, micro_batches, result.divisor, options, state);
  const int64_t squares = totals.numel() - 1;
  const at::Tensor control = at::empty({2}, totals.options().dtype(at::kFloat));
  device::clip_control(totals, totals.slice(0, squares), options.clip, control);
  update(mesh, options, control, state);

  const at::Tensor host = totals.cpu();  // waits for the device
  result.sums = state->sums.read(host.slice(0, 0, squares));
  result.gradient_norm = std::sqrt(host.const_data_ptr<double>()[squares]);
  if (!result.finite()) --state->optimizer.step;  // nothing was updated
  return result;
}

void wait_for_parameters(DeviceState* state) { state->updates.wait_all(); }

void copy_to_host(const Mesh& mesh, DeviceState* state, const Model& host,
                  OptimizerState* optimizer) {
  wait_for_parameters(state);
  const device::DeviceModel& model = state->model;
  optimizer->step = state->optimizer.step;
  for (const Half& half : halves(mesh, model.layout)) {
    const at::Tensor& master = state->optimizer.master.*half.buffer;
    const at::Tensor& parameters = host.parameters.*half.buffer;
    if (master.defined()) {
      put_owned_parts(*half.sharding, master.cpu(), parameters);
      all_gather_buckets(*half.group, *half.sharding, parameters);
    } else {
      parameters.copy_(model.parameters.*half.buffer);
    }
    (optimizer->exp_avg.*half.buffer).copy_(state->optimizer.exp_avg.*half.buffer);
    (optimizer->exp_avg_sq.*half.buffer).copy_(state->optimizer.exp_avg_sq.*half.buffer);
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
