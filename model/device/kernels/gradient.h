// Sums of gradients over slices and micro-batches.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// sum f32 [E, out, in] = (`onto`: itself, else 0) + gradient S [E, out, in]. The matrices of `sum`
// may lie apart; each is contiguous, and so is `gradient`.
void add_gradient(const at::Tensor& gradient, bool onto, const at::Tensor& sum);

}  // namespace emo::device
