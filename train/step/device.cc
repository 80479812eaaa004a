#include "train/step/device.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "model/device/backend.h"
#include "model/host/backend.h"
#include "parallel/agreement.h"
#include "parallel/mpi_communicator.h"
#ifdef EMO_WITH_CUDA
#include "parallel/nccl_communicator.h"
#endif

namespace emo {
namespace {

// This rank's number among those on its machine, as mpirun and Slurm say it.
int local_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}) {
    const char* text = std::getenv(name);
    int rank = 0;
    if (text != nullptr && absl::SimpleAtoi(text, &rank)) return rank;
  }
  return 0;
}

absl::Status check_gpu() {
#ifdef EMO_WITH_CUDA
  const int gpus = at::globalContext().hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (local_rank() < gpus) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("device cuda: rank ", local_rank(), " of this machine finds ", gpus,
                   " GPUs; start as many ranks on a machine as it has GPUs"));
#else
  return absl::InvalidArgumentError(
      "device cuda: this program was built without CUDA; ./launch/build.sh cuda builds "
      "build/cuda/emo");
#endif
}

}  // namespace

absl::StatusOr<Mesh> open_mesh_for(const RunConfig& config) {
  return open_mesh_on(config.parallel.device, /*dp=*/0, config.parallel.ep);
}

absl::StatusOr<Mesh> open_mesh_on(DeviceKind device, int64_t dp, int64_t ep) {
  std::unique_ptr<Communicator> world = world_communicator();
  if (device == DeviceKind::kCuda) {
    absl::Status status = agree(*world, check_gpu());
    if (!status.ok()) return status;
#ifdef EMO_WITH_CUDA
    world = nccl_communicator(std::move(world), device_of(device), nullptr);
#endif
  }
  return make_mesh(std::move(world), dp, ep);
}

std::shared_ptr<Backend> backend_for(DeviceKind device, Precision precision) {
  if (device == DeviceKind::kCpu) return host_backend();
  const at::ScalarType type = precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
  return device::make_backend(device_of(device), type);
}

absl::Status check_limits(const ModelConfig& config, DeviceKind device, Precision precision) {
  const std::vector<Limit> limits = backend_for(device, precision)->limits(config);
  return limits.empty() ? absl::OkStatus() : absl::InvalidArgumentError(limits.front().why);
}

at::Device device_of(DeviceKind device) {
  if (device != DeviceKind::kCuda) return at::Device(at::kCPU);
  return {at::kCUDA, static_cast<at::DeviceIndex>(local_rank())};
}

DeviceKind device_named(const std::string& name) {
  for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kCuda, DeviceKind::kEmulated}) {
    if (name == device_name(kind)) return kind;
  }
  TORCH_CHECK(false, "no device ", name);
}

const char* device_name(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda";
    case DeviceKind::kEmulated:
      return "emulated";
  }
  return "?";
}

}  // namespace emo
