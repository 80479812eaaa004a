// Where a run computes (parallel.device): on the CPU, on a GPU a rank, or on the CPU with the code
// of the GPU.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/backend.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"

namespace emo {

// Collective. The ranks of the job as the config's mesh, for tensors where the run computes: over
// NCCL on GPUs, each rank with the GPU of its number on its machine. InvalidArgument where the
// program was built without CUDA or a rank has no GPU, and what make_mesh() says.
absl::StatusOr<Mesh> open_mesh_for(const RunConfig& config);
absl::StatusOr<Mesh> open_mesh_on(DeviceKind device, int64_t dp, int64_t ep);

// What computes there: on a device with parameters of this precision.
std::shared_ptr<Backend> backend_for(DeviceKind device, Precision precision);

// InvalidArgument where that cannot compute such a model.
absl::Status check_limits(const ModelConfig& config, DeviceKind device, Precision precision);

// This rank's device.
at::Device device_of(DeviceKind device);

const char* device_name(DeviceKind kind);          // "cpu", "cuda", "emulated"
DeviceKind device_named(const std::string& name);  // the way back, of one of these

}  // namespace emo
