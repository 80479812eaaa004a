// The loss of a chunk of the language-model head's rows, and the gradient of its logits.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// logits S [n, V], labels i32 [n] (-100: none). Writes losses f32 [n], the cross-entropy, and
// z_squares f32 [n], the squared logsumexp, both 0 without a label; overwrites `logits` with the
// gradient of  scale * sum (cross-entropy + z_weight * logsumexp^2).
void cross_entropy_and_gradient(const at::Tensor& logits, const at::Tensor& labels, float scale,
                                float z_weight, const at::Tensor& losses,
                                const at::Tensor& z_squares);

}  // namespace emo::device
