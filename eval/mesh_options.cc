#include "eval/mesh_options.h"

#include "parallel/mpi_communicator.h"

namespace emo {

void add_mesh_options(CLI::App* app, MeshOptions* options) {
  app->add_option("--dp", options->dp, "data-parallel width; from the world size where left out");
  app->add_option("--ep", options->ep, "expert-parallel width; 1 where left out");
}

absl::StatusOr<Mesh> open_mesh(const MeshOptions& options) {
  return make_mesh(world_communicator(), options.dp, options.ep);
}

}  // namespace emo
