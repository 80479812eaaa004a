#include "model/device/kernels/rms_norm.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

constexpr int64_t kBlock = 64;  // rows of one partial sum of dw

template <typename S>
void normalise(const at::Tensor& xs, const at::Tensor& ws, float epsilon, const at::Tensor& ys,
               const at::Tensor& reciprocals) {
  const int64_t D = xs.size(1);
  const auto* x = xs.const_data_ptr<S>();
  const auto* w = ws.const_data_ptr<S>();
  auto* y = ys.mutable_data_ptr<S>();
  auto* reciprocal = reciprocals.mutable_data_ptr<float>();
  for_each_row(xs.device(), xs.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const S* row = x + t * D;
    float squares = 0;
    for (int64_t d = lanes.index(); d < D; d += lanes.count()) {
      const auto value = static_cast<float>(row[d]);
      squares += value * value;
    }
    squares = lanes.sum(squares);
    const float r = 1.0f / sqrtf(squares / static_cast<float>(D) + epsilon);
    if (lanes.index() == 0) reciprocal[t] = r;
    for (int64_t d = lanes.index(); d < D; d += lanes.count()) {
      y[t * D + d] = static_cast<S>(static_cast<float>(row[d]) * r * static_cast<float>(w[d]));
    }
  });
}

template <typename S>
void input_gradient(const at::Tensor& xs, const at::Tensor& ws, const at::Tensor& reciprocals,
                    const at::Tensor& dys, const at::Tensor& dxs) {
  const int64_t D = xs.size(1);
  const auto* x = xs.const_data_ptr<S>();
  const auto* w = ws.const_data_ptr<S>();
  const auto* dy = dys.const_data_ptr<S>();
  const auto* reciprocal = reciprocals.const_data_ptr<float>();
  auto* dx = dxs.mutable_data_ptr<S>();
  for_each_row(xs.device(), xs.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const float r = reciprocal[t];
    float product = 0;
    for (int64_t d = lanes.index(); d < D; d += lanes.count()) {
      product += static_cast<float>(dy[t * D + d]) * static_cast<float>(w[d]) *
                 static_cast<float>(x[t * D + d]);
    }
    const float scale = lanes.sum(product) * r * r * r / static_cast<float>(D);
    for (int64_t d = lanes.index(); d < D; d += lanes.count()) {
      const int64_t i = t * D + d;
      dx[i] = static_cast<S>(static_cast<float>(dx[i]) +
                             static_cast<float>(dy[i]) * static_cast<float>(w[d]) * r -
                             static_cast<float>(x[i]) * scale);
    }
  });
}

// dw: sums over blocks of rows, then over the blocks in order, so always the same bits.
template <typename S>
void weight_gradient(const at::Tensor& xs, const at::Tensor& reciprocals, const at::Tensor& dys,
                     const at::Tensor& dws) {
  const int64_t T = xs.size(0);
  const int64_t D = xs.size(1);
  const int64_t blocks = (T + kBlock - 1) / kBlock;
  const at::Tensor partials = at::empty({blocks, D}, reciprocals.options());
  const auto* x = xs.const_data_ptr<S>();
  const auto* dy = dys.const_data_ptr<S>();
  const auto* reciprocal = reciprocals.const_data_ptr<float>();
  auto* partial = partials.mutable_data_ptr<float>();
  auto* dw = dws.mutable_data_ptr<float>();
  for_each(xs.device(), blocks * D, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t d = i % D;
    const int64_t begin = i / D * kBlock;
    const int64_t end = begin + kBlock < T ? begin + kBlock : T;
    float sum = 0;
    for (int64_t t = begin; t < end; ++t) {
      sum += static_cast<float>(dy[t * D + d]) * static_cast<float>(x[t * D + d]) * reciprocal[t];
    }
    partial[i] = sum;
  });
  for_each(xs.device(), D, [=] EMO_HOST_DEVICE(int64_t d) {
    float sum = 0;
    for (int64_t b = 0; b < blocks; ++b) sum += partial[b * D + d];
    dw[d] += sum;
  });
}

}  // namespace

void rms_norm(const at::Tensor& x, const at::Tensor& w, float epsilon, const at::Tensor& y,
              const at::Tensor& reciprocal) {
  with_scalar(x.scalar_type(),
              [&](auto zero) { normalise<decltype(zero)>(x, w, epsilon, y, reciprocal); });
}

void rms_norm_backward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& reciprocal,
                       const at::Tensor& dy, const at::Tensor& dx, const at::Tensor& dw) {
  with_scalar(x.scalar_type(), [&](auto zero) {
    input_gradient<decltype(zero)>(x, w, reciprocal, dy, dx);
    weight_gradient<decltype(zero)>(x, reciprocal, dy, dw);
  });
}

}  // namespace emo::device
