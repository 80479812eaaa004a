#include "eval/open/mesh_options.h"

#include "data/program/exit_code.h"
#include "parallel/agreement.h"

namespace emo {

void add_mesh_options(OptionList* list, MeshOptions* options) {
  list->add("--dp", &options->dp, "data-parallel width; from the world size where left out");
  list->add("--ep", &options->ep, "expert-parallel width; 1 where left out");
}

void add_device_option(OptionList* list, MeshOptions* options) {
  list->add("--device", &options->device,
            "where the ranks compute: cpu, cuda (a GPU each), or emulated (the GPU's code on the "
            "CPU, "
            "to check it)")
      .one_of({"cpu", "cuda", "emulated"})
      .show_default();
}

void add_device_options(OptionList* list, MeshOptions* options) {
  add_device_option(list, options);
  list->add("--precision", &options->precision,
            "of a device: fp32, or bf16, which is faster and takes half the memory")
      .one_of({"fp32", "bf16"})
      .show_default();
}

absl::StatusOr<Mesh> open_mesh(const MeshOptions& options) {
  return open_mesh_on(device_named(options.device), options.dp, options.ep);
}

absl::StatusOr<int> on_first_rank(const std::function<absl::StatusOr<int>()>& work) {
  absl::StatusOr<Mesh> mesh = open_mesh({});
  if (!mesh.ok()) return mesh.status();
  absl::StatusOr<int> answer = kExitDone;
  if (mesh->is_first()) answer = work();
  absl::Status status = agree(*mesh->world, answer.status());
  if (!status.ok()) return status;
  return answer;
}

}  // namespace emo
