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

// Collective over `group`. Of all ranks, to a whole buffer on the host.
void gather_masters(Communicator& group, const Sharding& sharding, const at::Tensor& masters,
                    const at::Tensor& whole) {
  put_owned_parts(sharding, masters.cpu(), whole);
  all_gather_buckets(group, sharding, whole);
}

void copy_buffers(const FlatBuffers& from, const FlatBuffers& to) {
  to.dense.copy_(from.dense);
  to.experts.copy_(from.experts);
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
  load_masters(state_.model.layout, host_->model.parameters, &to);
  copy_buffers(host_->optimizer.exp_avg, to.exp_avg);
  copy_buffers(host_->optimizer.exp_avg_sq, to.exp_avg_sq);
}

void Stepper::copy_to_host() {
  wait_for_parameters();
  if (!host_) return;
  const OptimizerState& from = state_.optimizer;
  host_->optimizer.step = from.step;
  if (from.master.dense.defined()) {
    const ParameterLayout& layout = state_.model.layout;
    gather_masters(*mesh_.world, layout.dense, from.master.dense, host_->model.parameters.dense);
    gather_masters(*mesh_.dp, layout.experts, from.master.experts, host_->model.parameters.experts);
  } else {
    copy_buffers(state_.model.parameters, host_->model.parameters);
  }
  copy_buffers(from.exp_avg, host_->optimizer.exp_avg);
  copy_buffers(from.exp_avg_sq, host_->optimizer.exp_avg_sq);
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
