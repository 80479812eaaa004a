// The activation of a SwiGLU feed-forward (model/host/feed_forward.h), weighted by row:
//   act = w * SiLU(gate) * up,  hidden = [gate | up]
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// Which weight a row of hidden has. Without `slots` every weight is 1 and no row is padding.
struct RowWeights {
  at::Tensor slots;    // i32 [n] into weights; -1: padding, whose results are zero
  at::Tensor weights;  // f32 [slots]
};

// hidden S [n, 2 F] -> act S [n, F].
void swiglu(const at::Tensor& hidden, const RowWeights& rows, const at::Tensor& act);

// From d_act S [n, F]: overwrites `hidden` with its gradient; act S [n, F] as in the forward pass;
// d_weights f32 [slots] where a row has that slot (undefined without slots).
void swiglu_backward(const at::Tensor& hidden, const RowWeights& rows, const at::Tensor& d_act,
                     const at::Tensor& act, const at::Tensor& d_weights);

}  // namespace emo::device
