// AdamW (model/adamw.h) and the norm of gradients on a device, without waiting for
// it.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/adamw.h"

namespace emo::device {

// partial f64 [(n + kSquaresBlock - 1) / kSquaresBlock]: sums of squares of blocks of x f32 [n].
constexpr int64_t kSquaresBlock = 4096;
void block_squares(const at::Tensor& x, const at::Tensor& partial);

// control f32 [2] from the step's sums f64, whose first is the cross-entropy, and the gradients'
// squares f64 [1]: the factor that clips the norm to `limit` (0: no limit), and 1, or 0 where one
// of both is not finite.
void clip_control(const at::Tensor& sums, const at::Tensor& squares, double limit,
                  const at::Tensor& control);

// Updates master, m and v f32 [n] by gradient f32 [n] * control[0], and parameter S [n] (undefined:
// the master is the parameter). Nothing happens where control[1] is 0.
void adamw(const AdamWFactors& factors, const at::Tensor& control, const at::Tensor& gradient,
           const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
           const at::Tensor& parameter);

}  // namespace emo::device
