#include "eval/mesh_options.h"

#include "data/exit_code.h"
#include "parallel/mpi_communicator.h"
#include "train/agreement.h"

namespace emo {

void add_mesh_options(CLI::App* app, MeshOptions* options) {
  app->add_option("--dp", options->dp, "data-parallel width; from the world size where left out");
  app->add_option("--ep", options->ep, "expert-parallel width; 1 where left out");
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
