// RMSNorm (model/host/rms_norm.h) on a device, in fp32 or bf16 (S), with fp32 arithmetic. Matrices
// may be columns of wider ones: their rows lie a multiple of D apart.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// x S [T, D], w S [D] -> y S [T, D], and reciprocal f32 [T] for the backward pass.
void rms_norm(const at::Tensor& x, const at::Tensor& w, float epsilon, const at::Tensor& y,
              const at::Tensor& reciprocal);

// Adds to dx S [T, D] and dw f32 [D] what dy S [T, D] says.
void rms_norm_backward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& reciprocal,
                       const at::Tensor& dy, const at::Tensor& dx, const at::Tensor& dw);

}  // namespace emo::device
