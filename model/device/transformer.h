// The training pass of model/transformer.h on a device: a GPU, or the CPU where tests compare it
// with the CPU's own path.
//
// Parameters and activations are fp32 or bf16; gradients, router logits and sums are fp32 or wider.
// Memory comes from libtorch's allocator. For evaluation see inference.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "model/config.h"
#include "model/device/block.h"
#include "model/device/kernels/rope.h"
#include "model/device/losses.h"
#include "model/device/slice.h"
#include "model/device/weights.h"
#include "model/parameters.h"
#include "model/pass.h"
#include "model/transformer.h"

namespace emo::device {

// A model on this rank. Not copied; views point into the buffers.
struct DeviceModel {
  ModelConfig config;
  RoutingContract contract;
  ParameterLayout layout;
  at::Device device;
  at::ScalarType type;              // of parameters and activations
  ParameterLayout gradient_layout;  // see Gradients (model/transformer.h)
  FlatBuffers parameters;
  FlatBuffers gradients;  // f32, in gradient_layout; undefined with GradientMemory::kNone
  ModelTensors weights, weight_gradients;
  RopeTensors rope;
  int64_t positions() const { return rope.cosines.size(0); }
  int64_t head_rows = 4096;                 // whose logits are in memory at once
  std::vector<DevicePlacement> placements;  // [L]

  // Allocates; parameters are zero until load_parameters(). `positions`: tokens of a row. Fails
  // where limits_of() says something (limits.h).
  DeviceModel(const ModelConfig& config, const RoutingContract& contract,
              const GridPosition& position, int64_t positions, at::Device device,
              at::ScalarType type, const ExpertOrder& order = {},
              GradientMemory gradients = GradientMemory::kWhole);
  // Makes room for rows of so many positions; where it grows, to twice of what there was at least.
  void reserve_positions(int64_t positions);
  DeviceModel(const DeviceModel&) = delete;
  DeviceModel& operator=(const DeviceModel&) = delete;
};

// Copies host fp32 buffers of the same layout into the model's parameters, rounding to its type.
void load_parameters(const FlatBuffers& host, DeviceModel* model);

// Routing of each slice and MoE layer of the last micro-batch, for tests and metrics.
using Routings = std::vector<std::vector<Routing>>;

// Collective over ep and world. Adds a micro-batch's gradients to model->gradients (but see
// PassOptions::before_gradients: those of routed experts, most of all, need not be zero, and
// zeroing and reading them costs as much as a product) and its losses to `sums`. Slices as in
// model/transformer.h; the parameters say the precision. Beside plan_exchange nothing waits for the
// device. `traffic` [L], where not null, is counted up.
void forward_backward(DeviceModel* model, const std::vector<DeviceSlice>& slices,
                      const PassOptions& pass, BalanceCounts* counts, StepSums* sums,
                      std::vector<ExchangeCounters>* traffic = nullptr,
                      Routings* routings = nullptr);

}  // namespace emo::device
