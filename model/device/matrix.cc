#include "model/device/matrix.h"

#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "model/device/kernels/gradient.h"

namespace emo::device {
namespace {

bool is_bf16_on_gpu(const at::Tensor& x) { return x.is_cuda() && x.scalar_type() == at::kBFloat16; }

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& w) { return at::mm(x, w.t()); }

at::Tensor linear_input_gradient(const at::Tensor& dy, const at::Tensor& w) {
  return at::mm(dy, w);
}

at::Tensor linear_fp32(const at::Tensor& x, const at::Tensor& w) {
  if (is_bf16_on_gpu(x)) return at::mm(x, w.t(), at::kFloat);
  return linear(x.to(at::kFloat), w.to(at::kFloat));
}

void add_weight_gradient(const at::Tensor& dw, const at::Tensor& dy, const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) {
    dw.addmm_(dy.t(), x);
  } else if (is_bf16_on_gpu(x)) {
    at::Tensor sum = dw;
    at::addmm_out(sum, dw, dy.t(), x, at::kFloat);
  } else {
    dw.add_(at::mm(dy.t(), x));
  }
}

at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& ends) {
  return at::_grouped_mm(x, w.transpose(1, 2), ends);
}

at::Tensor grouped_linear_input_gradient(const at::Tensor& dy, const at::Tensor& w,
                                         const at::Tensor& ends) {
  return at::_grouped_mm(dy, w, ends);
}

void add_grouped_weight_gradient(const at::Tensor& dw, bool onto, const at::Tensor& dy,
                                 const at::Tensor& x, const at::Tensor& ends) {
  if (x.size(0) == 0) {  // no rows at all: what libtorch would answer is not said anywhere
    if (!onto) dw.zero_();
    return;
  }
  add_gradient(at::_grouped_mm(dy.t(), x, ends), onto, dw);
}

}  // namespace emo::device
