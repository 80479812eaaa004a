// What takes a run's training steps (training_step.h), on the host or a device: all that the
// trainer and the benchmark need.
#pragma once

#include <memory>
#include <optional>

#include "model/inference.h"
#include "train/config/run_config.h"
#include "train/step/step_batches.h"
#include "train/step/training_step.h"

namespace emo {

// Order of calls:
//   1. the caller fills model() and optimizer(), which begin as zeros, then copy_from_host()
//   2. step(), as often as there are steps
//   3. after a step: copy_to_host() before anything reads model() or optimizer(), as a checkpoint;
//      gradients() for those of that step; inference() to evaluate
class Stepper {
 public:
  // `mesh` must outlive it; see open_mesh_for() (train/step/device.h).
  Stepper(const RunConfig& config, const Mesh& mesh, const ExpertOrder& order);

  // In host memory, fp32: what a checkpoint holds. They are as the last copy_to_host() left them.
  // Where a device keeps parameters in bf16, these are the masters.
  Model* model() { return host_ ? &host_->model : &state_.model; }
  OptimizerState* optimizer() { return host_ ? &host_->optimizer : &state_.optimizer; }

  // Of the parameters that the run computes with.
  Precision parameter_precision() const {
    return state_.optimizer.master.dense.defined() ? Precision::kBf16 : Precision::kFp32;
  }

  // Local. What model() and optimizer() hold now is what the next step begins with. Must be called
  // once before the first step.
  void copy_from_host();
  // Collective. One step, as training_step(). It returns while updated parameters still travel.
  StepResult step(const StepBatches& batches, const StepOptions& options);
  // Local. Waits until this rank has the updated parameters where it computes; the next step does
  // so itself, this is for who measures one step alone.
  void wait_for_parameters() { emo::wait_for_parameters(&state_); }
  // Collective. Waits, then brings model() and optimizer() up to date.
  void copy_to_host();
  // Collective. The last step's gradients of all ranks, whole, in the model's layout, on the host;
  // they stand until the next step.
  FlatBuffers gradients();
  // Collective. For an evaluation between steps, where the run computes; it stands until the next
  // step. On the host in fp32, on a device in the run's precision.
  std::unique_ptr<Inference> inference();

 private:
  // Copies for the host, where a device computes.
  struct HostCopy {
    Model model;
    OptimizerState optimizer;
    HostCopy(const RunConfig& config, const Mesh& mesh, const ExpertOrder& order);
  };
  const Mesh& mesh_;
  TrainingState state_;
  std::optional<HostCopy> host_;
};

}  // namespace emo
