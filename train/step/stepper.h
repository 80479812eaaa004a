// What takes a run's training steps, on the CPU (training_step.h) or on a device (device_step.h):
// all that the trainer and the benchmark need of either.
#pragma once

#include <memory>

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
  virtual ~Stepper() = default;

  // In host memory: what a checkpoint holds. They are as the last copy_to_host() left them.
  virtual Model* model() = 0;
  virtual OptimizerState* optimizer() = 0;

  // Local. What model() and optimizer() hold now is what the next step begins with. Must be called
  // once before the first step.
  virtual void copy_from_host() = 0;
  // Collective. One step, as training_step(). It returns while updated parameters still travel.
  virtual StepResult step(const StepBatches& batches, const StepOptions& options) = 0;
  // Local. Waits until this rank has the updated parameters where it computes; the next step does
  // so itself, this is for who measures one step alone.
  virtual void wait_for_parameters() = 0;
  // Collective. Waits, then brings model() and optimizer() up to date.
  virtual void copy_to_host() = 0;
  // Collective. The last step's gradients of all ranks, whole, in the model's layout, on the host;
  // they stand until the next step.
  virtual FlatBuffers gradients() = 0;
  // Collective. For an evaluation between steps, where the run computes; it stands until the next
  // step. On the CPU in fp32, on a device in the run's precision.
  virtual std::unique_ptr<Inference> inference() = 0;
};

// `mesh` must outlive it; see open_mesh_for() (train/step/device.h).
std::unique_ptr<Stepper> make_stepper(const RunConfig& config, const Mesh& mesh, ExpertOrder order);

}  // namespace emo
