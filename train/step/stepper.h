// What takes a run's training steps, on the CPU (training_step.h) or on a device (device_step.h):
// all that the trainer and the benchmark need of either.
#pragma once

#include <memory>

#include "train/config/run_config.h"
#include "train/step/step_batches.h"
#include "train/step/training_step.h"

namespace emo {

class Stepper {
 public:
  virtual ~Stepper() = default;

  // In host memory: what a checkpoint holds. They are of the last sync() or, before the first step,
  // for the caller to fill; taken() tells the stepper that they were filled.
  virtual const Model& model() const = 0;
  virtual OptimizerState* optimizer() = 0;
  virtual void taken() = 0;

  // Collective. One step, as training_step().
  virtual StepResult step(const StepBatches& batches, const StepOptions& options) = 0;
  // Waits until this rank has the updated parameters where it computes.
  virtual void wait() = 0;
  // Collective. Brings model() and optimizer() up to date.
  virtual void sync() = 0;
  // Collective. The last step's gradients of all ranks, whole, in the model's layout, on the host.
  virtual FlatBuffers gradients() = 0;
  // Memory that passes share; an evaluation between steps may use it.
  virtual PassMemory* memory() = 0;
};

// `mesh` must outlive it; see open_mesh_for() (train/step/device.h).
std::unique_ptr<Stepper> make_stepper(const RunConfig& config, const Mesh& mesh, ExpertOrder order);

}  // namespace emo
