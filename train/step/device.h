// Where a run computes (parallel.device): on the CPU, on a GPU a rank, or on the CPU with the code
// of the GPU.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "absl/status/statusor.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"

namespace emo {

// Collective. The ranks of the job as the config's mesh, for tensors where the run computes: over
// NCCL on GPUs, each rank with the GPU of its number on its machine. InvalidArgument where the
// program was built without CUDA or a rank has no GPU, and what make_mesh() says.
absl::StatusOr<Mesh> open_mesh_for(const RunConfig& config);
absl::StatusOr<Mesh> open_mesh_on(DeviceKind device, int64_t dp, int64_t ep);

// InvalidArgument where the device cannot compute such a model with parameters of this type.
absl::Status check_limits(const ModelConfig& config, DeviceKind device, at::ScalarType type);

// This rank's device.
at::Device device_of(DeviceKind device);

const char* device_name(DeviceKind kind);          // "cpu", "cuda", "emulated"
DeviceKind device_named(const std::string& name);  // the way back, of one of these

}  // namespace emo
