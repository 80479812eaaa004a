#include "model/device/kernels/adamw.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S, int N>
void update(const AdamWFactors& f, const at::Tensor& controls, const at::Tensor& gradients,
            const at::Tensor& masters, const at::Tensor& ms, const at::Tensor& vs,
            const at::Tensor& parameters) {
  const auto* control = controls.const_data_ptr<float>();
  const auto* gradient = gradients.const_data_ptr<float>();
  auto* master = masters.mutable_data_ptr<float>();
  auto* m = ms.mutable_data_ptr<float>();
  auto* v = vs.mutable_data_ptr<float>();
  S* parameter = data_or_null<S>(parameters);
  for_each(masters.device(), masters.numel() / N, [=] EMO_HOST_DEVICE(int64_t n) {
    if (control[1] == 0) return;
    const int64_t i = n * N;
    const Pack<float, N> gs = pack_at<N>(gradient + i);
    Pack<float, N> m_here = pack_at<N>(m + i);
    Pack<float, N> v_here = pack_at<N>(v + i);
    Pack<float, N> w = pack_at<N>(master + i);
    for (int k = 0; k < N; ++k) {
      const float g = gs.at[k] * control[0];
      m_here.at[k] = f.beta1 * m_here.at[k] + (1 - f.beta1) * g;
      v_here.at[k] = f.beta2 * v_here.at[k] + (1 - f.beta2) * g * g;
      const float denominator = sqrtf(v_here.at[k]) * f.root_correction + f.epsilon;
      w.at[k] = w.at[k] * f.keep - f.step_size * m_here.at[k] / denominator;
    }
    pack_at<N>(m + i) = m_here;
    pack_at<N>(v + i) = v_here;
    pack_at<N>(master + i) = w;
    if (parameter == nullptr) return;
    Pack<S, N> rounded;
    for (int k = 0; k < N; ++k) rounded.at[k] = static_cast<S>(w.at[k]);
    pack_at<N>(parameter + i) = rounded;
  });
}

}  // namespace

void block_squares(const at::Tensor& xs, const at::Tensor& partials) {
  const int64_t n = xs.numel();
  const auto* x = xs.const_data_ptr<float>();
  auto* partial = partials.mutable_data_ptr<double>();
  for_each_row(xs.device(), partials.numel(), [=] EMO_HOST_DEVICE(int64_t block, Lanes lanes) {
    const int64_t begin = block * kSquaresBlock;
    const int64_t end = begin + kSquaresBlock < n ? begin + kSquaresBlock : n;
    double sum = 0;
    for (int64_t i = begin + lanes.index(); i < end; i += lanes.count()) {
      sum += static_cast<double>(x[i]) * x[i];
    }
    sum = lanes.sum(sum);
    if (lanes.index() == 0) partial[block] = sum;
  });
}

void clip_control(const at::Tensor& sums, const at::Tensor& squares, double limit,
                  const at::Tensor& control) {
  const auto* cross_entropy = sums.const_data_ptr<double>();
  const auto* square = squares.const_data_ptr<double>();
  auto* out = control.mutable_data_ptr<float>();
  for_each(control.device(), 1, [=] EMO_HOST_DEVICE(int64_t) {
    const double norm = sqrt(*square);
    const double factor = limit / (norm + 1e-6);
    out[0] = limit > 0 && factor < 1 ? static_cast<float>(factor) : 1.0f;
    const double both = *cross_entropy + norm;  // infinities have no opposite here: both are >= 0
    out[1] = both - both == 0 ? 1.0f : 0.0f;
  });
}

void adamw(const AdamWFactors& factors, const at::Tensor& control, const at::Tensor& gradient,
           const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
           const at::Tensor& parameter) {
  // The first decides the type.
  with_packs(master.numel(), {parameter.defined() ? parameter : master, gradient, master, m, v},
             [&](auto zero, auto pack) {
               update<decltype(zero), pack()>(factors, control, gradient, master, m, v, parameter);
             });
}

}  // namespace emo::device
