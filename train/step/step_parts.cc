#include "train/step/step_parts.h"

#include <ATen/ops/from_blob.h>

#include <cmath>

namespace emo {

bool StepResult::finite() const {
  return std::isfinite(sums.cross_entropy) && std::isfinite(gradient_norm);
}

int64_t passes_of(const std::vector<MicroBatch>& micro_batches) {
  int64_t passes = 0;
  for (const MicroBatch& slices : micro_batches) passes += static_cast<int64_t>(slices.size());
  return passes;
}

void compute_gradients(Communicator& world, size_t micro_batches, int64_t divisor_share,
                       StepParts* step) {
  world.all_reduce(at::from_blob(&divisor_share, {1}, at::kLong), ReduceOp::kSum);
  step->begin(static_cast<double>(divisor_share));
  for (size_t m = 0; m < micro_batches; ++m) step->accumulate(m);
  step->reduce();
}

StepResult take_step(Communicator& world, size_t micro_batches, int64_t divisor_share,
                     StepParts* step) {
  compute_gradients(world, micro_batches, divisor_share, step);
  step->clip();
  step->update();
  return step->result();
}

}  // namespace emo
