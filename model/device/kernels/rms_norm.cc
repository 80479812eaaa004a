#include "model/device/kernels/rms_norm.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

constexpr int64_t kBlock = 64;  // rows of one partial sum of dw

template <typename S, int N>
void normalise(const at::Tensor& xs, const at::Tensor& ws, float epsilon, const at::Tensor& ys,
               const at::Tensor& reciprocals) {
  const int64_t D = xs.size(1);
  const int64_t x_stride = xs.stride(0);
  const int64_t y_stride = ys.stride(0);
  const auto* x = xs.const_data_ptr<S>();
  const auto* w = ws.const_data_ptr<S>();
  auto* y = ys.mutable_data_ptr<S>();
  auto* reciprocal = reciprocals.mutable_data_ptr<float>();
  for_each_row(xs.device(), xs.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const S* row = x + t * x_stride;
    float squares = 0;
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      const Pack<S, N> values = pack_at<N>(row + d);
      for (const S value : values.at) {
        squares += static_cast<float>(value) * static_cast<float>(value);
      }
    }
    squares = lanes.sum(squares);
    const float r = 1.0f / sqrtf(squares / static_cast<float>(D) + epsilon);
    if (lanes.index() == 0) reciprocal[t] = r;
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      Pack<S, N> values = pack_at<N>(row + d);
      const Pack<S, N> weights = pack_at<N>(w + d);
      for (int i = 0; i < N; ++i) {
        values.at[i] = static_cast<S>(static_cast<float>(values.at[i]) * r *
                                      static_cast<float>(weights.at[i]));
      }
      pack_at<N>(y + t * y_stride + d) = values;
    }
  });
}

template <typename S, int N>
void input_gradient(const at::Tensor& xs, const at::Tensor& ws, const at::Tensor& reciprocals,
                    const at::Tensor& dys, const at::Tensor& dxs) {
  const int64_t D = xs.size(1);
  const int64_t x_stride = xs.stride(0);
  const int64_t dy_stride = dys.stride(0);
  const int64_t dx_stride = dxs.stride(0);
  const auto* x = xs.const_data_ptr<S>();
  const auto* w = ws.const_data_ptr<S>();
  const auto* dy = dys.const_data_ptr<S>();
  const auto* reciprocal = reciprocals.const_data_ptr<float>();
  auto* dx = dxs.mutable_data_ptr<S>();
  for_each_row(xs.device(), xs.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const float r = reciprocal[t];
    float product = 0;
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      const Pack<S, N> dys_here = pack_at<N>(dy + t * dy_stride + d);
      const Pack<S, N> weights = pack_at<N>(w + d);
      const Pack<S, N> xs_here = pack_at<N>(x + t * x_stride + d);
      for (int i = 0; i < N; ++i) {
        product += static_cast<float>(dys_here.at[i]) * static_cast<float>(weights.at[i]) *
                   static_cast<float>(xs_here.at[i]);
      }
    }
    const float scale = lanes.sum(product) * r * r * r / static_cast<float>(D);
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      const Pack<S, N> dys_here = pack_at<N>(dy + t * dy_stride + d);
      const Pack<S, N> weights = pack_at<N>(w + d);
      const Pack<S, N> xs_here = pack_at<N>(x + t * x_stride + d);
      Pack<S, N> sums = pack_at<N>(dx + t * dx_stride + d);
      for (int i = 0; i < N; ++i) {
        sums.at[i] = static_cast<S>(static_cast<float>(sums.at[i]) +
                                    static_cast<float>(dys_here.at[i]) *
                                        static_cast<float>(weights.at[i]) * r -
                                    static_cast<float>(xs_here.at[i]) * scale);
      }
      pack_at<N>(dx + t * dx_stride + d) = sums;
    }
  });
}

// dw: sums over blocks of rows, then over the blocks in order, so always the same bits.
template <typename S, int N>
void weight_gradient(const at::Tensor& xs, const at::Tensor& reciprocals, const at::Tensor& dys,
                     const at::Tensor& dws) {
  const int64_t T = xs.size(0);
  const int64_t D = xs.size(1);
  const int64_t x_stride = xs.stride(0);
  const int64_t dy_stride = dys.stride(0);
  const int64_t blocks = (T + kBlock - 1) / kBlock;
  const at::Tensor partials = at::empty({blocks, D}, reciprocals.options());
  const auto* x = xs.const_data_ptr<S>();
  const auto* dy = dys.const_data_ptr<S>();
  const auto* reciprocal = reciprocals.const_data_ptr<float>();
  auto* partial = partials.mutable_data_ptr<float>();
  auto* dw = dws.mutable_data_ptr<float>();
  for_each(xs.device(), blocks * D / N, [=] EMO_HOST_DEVICE(int64_t n) {
    const int64_t d = n * N % D;
    const int64_t begin = n * N / D * kBlock;
    const int64_t end = begin + kBlock < T ? begin + kBlock : T;
    Pack<float, N> sums{};
    for (int64_t t = begin; t < end; ++t) {
      const Pack<S, N> dys_here = pack_at<N>(dy + t * dy_stride + d);
      const Pack<S, N> xs_here = pack_at<N>(x + t * x_stride + d);
      for (int i = 0; i < N; ++i) {
        sums.at[i] +=
            static_cast<float>(dys_here.at[i]) * static_cast<float>(xs_here.at[i]) * reciprocal[t];
      }
    }
    pack_at<N>(partial + n * N) = sums;
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
  with_packs(x.size(1), {x, w, y}, [&](auto zero, auto pack) {
    normalise<decltype(zero), pack()>(x, w, epsilon, y, reciprocal);
  });
}

void rms_norm_backward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& reciprocal,
                       const at::Tensor& dy, const at::Tensor& dx, const at::Tensor& dw) {
  with_packs(x.size(1), {x, w, dy, dx}, [&](auto zero, auto pack) {
    input_gradient<decltype(zero), pack()>(x, w, reciprocal, dy, dx);
    weight_gradient<decltype(zero), pack()>(x, reciprocal, dy, dw);
  });
}

}  // namespace emo::device
