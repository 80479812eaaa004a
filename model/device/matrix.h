// Matrix products of the device path: libtorch's, on tensors of fp32 or bf16 (S).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace emo::device {

// x [n, in] W [out, in]^T -> [n, out], and the gradient of x: dy [n, out] W -> [n, in].
at::Tensor linear(const at::Tensor& x, const at::Tensor& w);
at::Tensor linear_input_gradient(const at::Tensor& dy, const at::Tensor& w);

// The same in f32 [n, out], whatever S is. A product of two bf16 numbers has a place in fp32, so
// nothing is lost beside converting x and W first.
at::Tensor linear_fp32(const at::Tensor& x, const at::Tensor& w);

// dW f32 [out, in] += dy [n, out]^T x [n, in]. In bf16 on a GPU it is summed up in fp32 where it is
// made; on the CPU the product is rounded before it is added, as autograd's is.
void add_weight_gradient(const at::Tensor& dw, const at::Tensor& dy, const at::Tensor& x);

// The same for E experts at once: group e is rows [ends[e - 1], ends[e]) of the tensors with Q
// rows; ends i32 [E], on the device; w [E, out, in], each matrix contiguous. Rows behind the last
// end are undefined in results. On a GPU in bf16 nothing waits for the device (sm_90 and newer;
// elsewhere, and in fp32, libtorch reads `ends` on the host).
//
// What at::_grouped_mm asks on CUDA and we guarantee: pointers and strides in multiples of 16 bytes
// (widths are multiples of width_multiple(), checked by the model), and for the gradient of weights
// groups of a multiple of kGroupMultiple rows (padded with zero rows by the exchange plan).
inline int64_t width_multiple(at::ScalarType type) {  // 16 bytes
  return 16 / static_cast<int64_t>(c10::elementSize(type));
}
constexpr int64_t kGroupMultiple = 8;
at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& ends);
at::Tensor grouped_linear_input_gradient(const at::Tensor& dy, const at::Tensor& w,
                                         const at::Tensor& ends);
// dW = (`onto`: itself, else 0) + dy^T x. In bf16 each product is rounded before it is added.
void add_grouped_weight_gradient(const at::Tensor& dw, bool onto, const at::Tensor& dy,
                                 const at::Tensor& x, const at::Tensor& ends);

}  // namespace emo::device
