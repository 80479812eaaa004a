// Gradients of replicated parameters, summed over the ranks that replicate them.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/mesh.h"

namespace emo {

// Collective over the mesh, in place: `dense` over all ranks, `experts` over dp. Sums, never means:
// losses are divided by global counts already. Afterwards replicas are equal bit for bit.
void reduce_gradients(const Mesh& mesh, const at::Tensor& dense, const at::Tensor& experts);

}  // namespace emo
