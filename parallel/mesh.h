// The grid of ranks: world = dp x ep, ep innermost, so that the ranks of an expert group sit next
// to each other (inside a node). Every rank has rows of its own.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "parallel/communicator.h"

namespace emo {

// Where a rank stands in the grid, as numbers.
struct GridPosition {
  int64_t ep = 1, ep_rank = 0;
  int64_t dp = 1, dp_rank = 0;
  int64_t ranks() const { return dp * ep; }
  int64_t rank() const { return dp_rank * ep + ep_rank; }
};

struct Mesh {
  std::unique_ptr<Communicator> world;  // all ranks: what dense parameters are replicated over
  std::unique_ptr<Communicator> ep;     // ranks that together hold all experts
  std::unique_ptr<Communicator> dp;     // ranks that hold the same experts

  int64_t rank() const { return world->rank(); }
  GridPosition position() const { return {ep->size(), ep->rank(), dp->size(), dp->rank()}; }
  bool is_first() const { return world->rank() == 0; }
};

// Collective. A size of 0 is filled in: ep by 1 (or world / dp), dp by what is left.
// InvalidArgument, the same on every rank, where dp x ep is not the world's size.
absl::StatusOr<Mesh> make_mesh(std::unique_ptr<Communicator> world, int64_t dp, int64_t ep);

}  // namespace emo
