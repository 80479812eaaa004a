// --dp, --ep and --device, the same for every command that opens a model on several ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/program/options.h"

#include "absl/status/statusor.h"
#include "parallel/mesh.h"
#include "train/step/device.h"

namespace emo {

struct MeshOptions {
  int64_t dp = 0, ep = 0;          // 0: filled in, see make_mesh()
  std::string device = "cpu";      // where the ranks compute, see device_named()
  std::string precision = "fp32";  // of a device: "fp32", "bf16"
};

// Adds --dp and --ep to a command; `options` must outlive its parsing.
void add_mesh_options(OptionList* list, MeshOptions* options);
// --device and --precision, for commands that a device can do. The first alone: add_device_option.
void add_device_options(OptionList* list, MeshOptions* options);
void add_device_option(OptionList* list, MeshOptions* options);

// Collective. For commands that one process does alone: the first rank works, every rank gets its
// answer.
absl::StatusOr<int> on_first_rank(const std::function<absl::StatusOr<int>()>& work);

// Collective. The mesh of all ranks of the job; errors as open_mesh_on() (train/step/device.h).
absl::StatusOr<Mesh> open_mesh(const MeshOptions& options);

}  // namespace emo
