// --dp and --ep, the same for every command that opens a model on several ranks.
#pragma once

#include <cstdint>
#include <functional>
#include "data/program/options.h"

#include "absl/status/statusor.h"
#include "parallel/mesh.h"

namespace emo {

struct MeshOptions {
  int64_t dp = 0, ep = 0;  // 0: filled in, see make_mesh()
};

// Adds both to a command; `options` must outlive its parsing.
void add_mesh_options(OptionList* list, MeshOptions* options);

// Collective. For commands that one process does alone: the first rank works, every rank gets its
// answer.
absl::StatusOr<int> on_first_rank(const std::function<absl::StatusOr<int>()>& work);

// Collective. The mesh of all ranks of the job; InvalidArgument where dp x ep does not fit.
absl::StatusOr<Mesh> open_mesh(const MeshOptions& options);

}  // namespace emo
