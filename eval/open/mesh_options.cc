#include "eval/open/mesh_options.h"

#include "data/program/exit_code.h"
#include "parallel/agreement.h"
#include "parallel/mpi_communicator.h"

namespace emo {

void add_mesh_options(OptionList* list, MeshOptions* options) {
  list->add("--dp", &options->dp, "data-parallel width; from the world size where left out");
  list->add("--ep", &options->ep, "expert-parallel width; 1 where left out");
}

absl::StatusOr<Mesh> open_mesh(const MeshOptions& options) {
  return make_mesh(world_communicator(), options.dp, options.ep);
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
