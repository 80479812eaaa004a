#include "model/device/matrix.h"

#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/mm.h>

namespace emo::device {

at::Tensor linear(const at::Tensor& x, const at::Tensor& w) { return at::mm(x, w.t()); }

at::Tensor linear_input_gradient(const at::Tensor& dy, const at::Tensor& w) {
  return at::mm(dy, w);
}

void add_weight_gradient(const at::Tensor& dw, const at::Tensor& dy, const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) {
    dw.addmm_(dy.t(), x);
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

void add_grouped_weight_gradient(const at::Tensor& dw, const at::Tensor& dy, const at::Tensor& x,
                                 const at::Tensor& ends) {
  dw.add_(at::_grouped_mm(dy.t(), x, ends));
}

}  // namespace emo::device
