#include "parallel/gradient_reduction.h"

namespace emo {

void reduce_gradients(const Mesh& mesh, const at::Tensor& dense, const at::Tensor& experts) {
  const auto pending = mesh.world->all_reduce_async(dense, ReduceOp::kSum);
  mesh.dp->all_reduce(experts, ReduceOp::kSum);
  pending->wait();
}

}  // namespace emo
