#include "model/device/kernels/swiglu.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

EMO_HOST_DEVICE inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename S>
void activate(const at::Tensor& hiddens, const RowWeights& rows, const at::Tensor& acts) {
  const int64_t F = acts.size(1);
  const auto* hidden = hiddens.const_data_ptr<S>();
  const int32_t* slots = data_or_null<int32_t>(rows.slots);
  const float* weights = data_or_null<float>(rows.weights);
  auto* act = acts.mutable_data_ptr<S>();
  for_each(acts.device(), acts.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t row = i / F;
    const int64_t at = row * 2 * F + i % F;
    const int32_t slot = slots == nullptr ? 0 : slots[row];
    if (slot < 0) {
      act[i] = static_cast<S>(0.0f);
      return;
    }
    const float w = slots == nullptr ? 1.0f : weights[slot];
    const auto gate = static_cast<float>(hidden[at]);
    act[i] = static_cast<S>(w * gate * sigmoid(gate) * static_cast<float>(hidden[at + F]));
  });
}

template <typename S>
void backward(const at::Tensor& hiddens, const RowWeights& rows, const at::Tensor& d_acts,
              const at::Tensor& acts, const at::Tensor& d_weights_out) {
  const int64_t F = acts.size(1);
  auto* hidden = hiddens.mutable_data_ptr<S>();
  const auto* d_act = d_acts.const_data_ptr<S>();
  const int32_t* slots = data_or_null<int32_t>(rows.slots);
  const float* weights = data_or_null<float>(rows.weights);
  auto* act = acts.mutable_data_ptr<S>();
  float* d_weights = data_or_null<float>(d_weights_out);
  for_each_row(acts.device(), acts.size(0), [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int32_t slot = slots == nullptr ? 0 : slots[row];
    const float w = slots == nullptr ? 1.0f : slot < 0 ? 0.0f : weights[slot];
    float product = 0;
    for (int64_t f = lanes.index(); f < F; f += lanes.count()) {
      S* gate_at = hidden + row * 2 * F + f;
      S* up_at = gate_at + F;
      if (slot < 0) {
        *gate_at = *up_at = act[row * F + f] = static_cast<S>(0.0f);
        continue;
      }
      const auto gate = static_cast<float>(*gate_at);
      const auto up = static_cast<float>(*up_at);
      const auto d = static_cast<float>(d_act[row * F + f]);
      const float s = sigmoid(gate);
      const float silu = gate * s;
      product += d * silu * up;
      act[row * F + f] = static_cast<S>(w * silu * up);
      *gate_at = static_cast<S>(w * d * up * (s + silu * (1.0f - s)));
      *up_at = static_cast<S>(w * d * silu);
    }
    product = lanes.sum(product);
    if (d_weights != nullptr && slot >= 0 && lanes.index() == 0) d_weights[slot] = product;
  });
}

}  // namespace

void swiglu(const at::Tensor& hidden, const RowWeights& rows, const at::Tensor& act) {
  with_scalar(hidden.scalar_type(),
              [&](auto zero) { activate<decltype(zero)>(hidden, rows, act); });
}

void swiglu_backward(const at::Tensor& hidden, const RowWeights& rows, const at::Tensor& d_act,
                     const at::Tensor& act, const at::Tensor& d_weights) {
  with_scalar(hidden.scalar_type(),
              [&](auto zero) { backward<decltype(zero)>(hidden, rows, d_act, act, d_weights); });
}

}  // namespace emo::device
