#include "train/step/stepper.h"

#include <utility>

#include "model/device/inference.h"
#include "train/step/device.h"
#include "train/step/device_step.h"

namespace emo {
namespace {

class CpuStepper : public Stepper {
 public:
  CpuStepper(const RunConfig& config, const Mesh& mesh, ExpertOrder order)
      : mesh_(mesh),
        state_(config.model, config.routing, config.data.sequence_length, mesh.position(),
               state_options_of(config, std::move(order))) {}
  Model* model() override { return &state_.model; }
  OptimizerState* optimizer() override { return &state_.optimizer; }
  void copy_from_host() override {}  // it computes where they are
  StepResult step(const StepBatches& batches, const StepOptions& options) override {
    return training_step(mesh_, batches.micro_batches, batches.divisor_share, options, &state_);
  }
  void wait_for_parameters() override { emo::wait_for_parameters(&state_); }
  void copy_to_host() override { emo::wait_for_parameters(&state_); }
  FlatBuffers gradients() override { return gather_gradients(mesh_, &state_); }
  std::unique_ptr<Inference> inference() override {
    emo::wait_for_parameters(&state_);
    return make_inference(&state_.model, mesh_, &state_.memory.buffers);
  }

 private:
  const Mesh& mesh_;
  TrainingState state_;
};

class DeviceStepper : public Stepper {
 public:
  DeviceStepper(const RunConfig& config, const Mesh& mesh, const ExpertOrder& order)
      : mesh_(mesh),
        model_(config.model, config.routing, config.data.sequence_length, mesh.position(), order),
        optimizer_(make_optimizer_state(model_.layout)),
        state_(config.model, config.routing, config.data.sequence_length, mesh.position(),
               device_of(config.parallel.device),
               config.parallel.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat,
               state_options_of(config, order)) {}
  Model* model() override { return &model_; }
  OptimizerState* optimizer() override { return &optimizer_; }
  void copy_from_host() override { emo::copy_from_host(model_, optimizer_, &state_); }
  StepResult step(const StepBatches& batches, const StepOptions& options) override {
    return training_step(mesh_, batches.micro_batches, batches.divisor_share, options, &state_);
  }
  void wait_for_parameters() override { emo::wait_for_parameters(&state_); }
  void copy_to_host() override { emo::copy_to_host(mesh_, &state_, &model_, &optimizer_); }
  FlatBuffers gradients() override {
    const FlatBuffers whole = gather_owned(mesh_, state_.model.layout, state_.owned_gradients);
    return {whole.dense.cpu(), whole.experts.cpu()};
  }
  std::unique_ptr<Inference> inference() override {
    emo::wait_for_parameters(&state_);
    return device::make_inference(&state_.model, mesh_);
  }

 private:
  const Mesh& mesh_;
  Model model_;
  OptimizerState optimizer_;
  DeviceState state_;
};

}  // namespace

std::unique_ptr<Stepper> make_stepper(const RunConfig& config, const Mesh& mesh,
                                      ExpertOrder order) {
  if (config.parallel.device == DeviceKind::kCpu) {
    return std::make_unique<CpuStepper>(config, mesh, std::move(order));
  }
  return std::make_unique<DeviceStepper>(config, mesh, order);
}

}  // namespace emo
