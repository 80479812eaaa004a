#include "train/step/stepper.h"

#include <utility>

#include "parallel/sharding.h"
#include "train/step/device.h"

namespace emo {
namespace {

StateOptions state_options(const RunConfig& config, const ExpertOrder& order) {
  StateOptions options = state_options_of(config, order);
  options.backend = backend_for(config.parallel.device, config.parallel.precision);
  return options;
}

// The two buffers of a layout, and the ranks that share each.
struct Half {
  Communicator& group;
  const Sharding& sharding;
  at::Tensor FlatBuffers::* buffer;
};
std::vector<Half> halves(const Mesh& mesh, const ParameterLayout& layout) {
  return {{*mesh.world, layout.dense, &FlatBuffers::dense},
          {*mesh.dp, layout.experts, &FlatBuffers::experts}};
}

}  // namespace

Stepper::Stepper(const RunConfig& config, const Mesh& mesh, const ExpertOrder& order)
    : mesh_(mesh),
      state_(config.model, config.routing, config.data.sequence_length, mesh.position(),
             state_options(config, order)) {
  if (config.parallel.device == DeviceKind::kCpu) return;
  host_.emplace(config, mesh, order);
}

Stepper::HostCopy::HostCopy(const RunConfig& config, const Mesh& mesh, const ExpertOrder& order)
    : model(config.model, config.routing, /*positions=*/1, mesh.position(), order),
      optimizer(make_optimizer_state(model.layout)) {}

void Stepper::copy_from_host() {
  if (!host_) return;
  wait_for_parameters();
  load_parameters(host_->model.parameters, &state_.model);
  OptimizerState& to = state_.optimizer;
  to.step = host_->optimizer.step;
  for (const Half& half : halves(mesh_, state_.model.layout)) {
    const at::Tensor& master = to.master.*half.buffer;
    if (master.defined()) {
      master.copy_(owned_parts(half.sharding, host_->model.parameters.*half.buffer));
    }
    (to.exp_avg.*half.buffer).copy_(host_->optimizer.exp_avg.*half.buffer);
    (to.exp_avg_sq.*half.buffer).copy_(host_->optimizer.exp_avg_sq.*half.buffer);
  }
}

void Stepper::copy_to_host() {
  wait_for_parameters();
  if (!host_) return;
  const OptimizerState& from = state_.optimizer;
  host_->optimizer.step = from.step;
  for (const Half& half : halves(mesh_, state_.model.layout)) {
    const at::Tensor& master = from.master.*half.buffer;
    const at::Tensor& parameters = host_->model.parameters.*half.buffer;
    if (master.defined()) {
      put_owned_parts(half.sharding, master.cpu(), parameters);
      all_gather_buckets(half.group, half.sharding, parameters);
    } else {
      parameters.copy_(state_.model.parameters.*half.buffer);
    }
    (host_->optimizer.exp_avg.*half.buffer).copy_(from.exp_avg.*half.buffer);
    (host_->optimizer.exp_avg_sq.*half.buffer).copy_(from.exp_avg_sq.*half.buffer);
  }
}

StepResult Stepper::step(const StepBatches& batches, const StepOptions& options) {
  return training_step(mesh_, batches.micro_batches, batches.divisor_share, options, &state_);
}

FlatBuffers Stepper::gradients() {
  const FlatBuffers whole = gather_gradients(mesh_, &state_);
  return {whole.dense.cpu(), whole.experts.cpu()};
}

std::unique_ptr<Inference> Stepper::inference() {
  wait_for_parameters();
  return std::make_unique<Inference>(&state_.model, mesh_, &state_.memory.buffers);
}

}  // namespace emo
