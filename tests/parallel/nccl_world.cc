// nccl_test: NCCL, on this rank's GPU, or its stand-in, on tensors in host memory.
#include <cstdlib>
#include <string>
#include <utility>

#include "parallel/nccl_communicator.h"
#include "tests/parallel/test_world.h"

namespace emo {

std::unique_ptr<Communicator> communicator_under_test(std::unique_ptr<Communicator> world) {
  return nccl_communicator(std::move(world), test_device(), nullptr);
}

at::Device test_device() {
  at::Device device(std::string(EMO_TEST_DEVICE));
  const char* local_rank = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
  if (device.is_cuda())
    device.set_index(
        static_cast<at::DeviceIndex>(local_rank == nullptr ? 0 : std::atoi(local_rank)));
  return device;
}

}  // namespace emo
