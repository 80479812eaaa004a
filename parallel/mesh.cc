#include "parallel/mesh.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace emo {

absl::StatusOr<Mesh> make_mesh(std::unique_ptr<Communicator> world, int64_t dp, int64_t ep) {
  const int64_t size = world->size();
  if (ep == 0) ep = dp > 0 ? size / dp : 1;
  if (dp == 0 && ep > 0) dp = size / ep;
  if (dp < 1 || ep < 1 || dp * ep != size) {
    return absl::InvalidArgumentError(absl::StrCat("dp ", dp, " x ep ", ep, " is not the world's ",
                                                   size, size == 1 ? " rank" : " ranks",
                                                   "; start as many ranks, or change dp or ep"));
  }
  Mesh mesh;
  const int64_t rank = world->rank();
  mesh.ep = world->split(rank / ep, rank);
  mesh.dp = world->split(rank % ep, rank);
  mesh.world = std::move(world);
  return mesh;
}

}  // namespace emo
