// One optimizer step on a device (model/device/transformer.h), from micro-batches to updated
// parameters: the counterpart of train/step/training_step.h, with the same losses, reductions,
// clipping and updates.
//
// Parameters are fp32 or bf16; gradients, their reduction, masters and moments are fp32. Masters
// and moments exist for the parts that this rank owns. The host waits for the device in the expert
// exchange's counts and once at the end of a step, for its sums.
#pragma once

#include <cstdint>
#include <vector>

#include "model/device/transformer.h"
#include "parallel/mesh.h"
#include "train/step/training_step.h"

namespace emo {

// Optimizer state of the parts of the parameters that this rank owns, side by side, fp32 on the
// device.
struct DeviceOptimizer {
  int64_t step = 0;        // updates done
  FlatBuffers master;      // undefined where parameters are fp32 and so their own masters
  FlatBuffers exp_avg;     // first moment
  FlatBuffers exp_avg_sq;  // second moment
};

// Everything that a step reads and changes on this rank.
struct DeviceState {
  device::DeviceModel model;
  DeviceOptimizer optimizer;
  device::BalanceCounts balance;
  device::StepSums sums;
  PendingBuckets updates;       // parameters that other ranks updated, on their way
  FlatBuffers owned_gradients;  // see make_owned_gradients()
  TrainedParts trained;

  DeviceState(const ModelConfig& config, const RoutingContract& contract, int64_t sequence_length,
              const GridPosition& position, at::Device device, at::ScalarType type,
              const StateOptions& options = {});
};

// Collective over `mesh`, whose communicators serve the device's tensors: the parts of
// step_parts.h. Where the result is not finite nothing is updated, on any
// rank. Updated parameters are still travelling when it returns; wait_for_parameters() before
// anything but the next step reads them. StepOptions::profile is the CPU path's.
StepResult training_step(const Mesh& mesh, const std::vector<MicroBatch>& micro_batches,
                         int64_t divisor_share, const StepOptions& options, DeviceState* state);

void wait_for_parameters(DeviceState* state);

// Collective over `mesh`: what a checkpoint writes. The masters become the parameters of `host`, a
// model of the same layout, and the moments `optimizer`'s.
void copy_to_host(const Mesh& mesh, DeviceState* state, Model* host, OptimizerState* optimizer);

// Local, the way back: what a checkpoint was read into.
void copy_from_host(const Model& host, const OptimizerState& optimizer, DeviceState* state);

}  // namespace emo
