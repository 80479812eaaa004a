#include "model/device/kernels/swiglu.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

EMO_HOST_DEVICE inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename S, int N>
void activate(const at::Tensor& hiddens, const RowWeights& rows, const at::Tensor& acts) {
  const int64_t F = acts.size(1);
  const auto* hidden = hiddens.const_data_ptr<S>();
  const int32_t* slots = data_or_null<int32_t>(rows.slots);
  const float* weights = data_or_null<float>(rows.weights);
  auto* act = acts.mutable_data_ptr<S>();
  for_each_row(acts.device(), acts.size(0), [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
    const int32_t slot = slots == nullptr ? 0 : slots[row];
    const float w = slots == nullptr ? 1.0f : slot < 0 ? 0.0f : weights[slot];
    for (int64_t f = lanes.index() * N; f < F; f += lanes.count() * N) {
      Pack<S, N> result{};
      if (slot >= 0) {
        const Pack<S, N> gates = pack_at<N>(hidden + row * 2 * F + f);
        const Pack<S, N> ups = pack_at<N>(hidden + row * 2 * F + F + f);
        for (int i = 0; i < N; ++i) {
          const auto gate = static_cast<float>(gates.at[i]);
          result.at[i] = static_cast<S>(w * gate * sigmoid(gate) * static_cast<float>(ups.at[i]));
        }
      }
      pack_at<N>(act + row * F + f) = result;
    }
  });
}

template <typename S, int N>
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
    for (int64_t f = lanes.index() * N; f < F; f += lanes.count() * N) {
      Pack<S, N>& gates_at = pack_at<N>(hidden + row * 2 * F + f);
      Pack<S, N>& ups_at = pack_at<N>(hidden + row * 2 * F + F + f);
      Pack<S, N> gates{}, ups{}, result{};
      if (slot >= 0) {
        gates = gates_at;
        ups = ups_at;
        const Pack<S, N> d_acts_here = pack_at<N>(d_act + row * F + f);
        for (int i = 0; i < N; ++i) {
          const auto gate = static_cast<float>(gates.at[i]);
          const auto up = static_cast<float>(ups.at[i]);
          const auto d = static_cast<float>(d_acts_here.at[i]);
          const float s = sigmoid(gate);
          const float silu = gate * s;
          product += d * silu * up;
          result.at[i] = static_cast<S>(w * silu * up);
          gates.at[i] = static_cast<S>(w * d * up * (s + silu * (1.0f - s)));
          ups.at[i] = static_cast<S>(w * d * silu);
        }
      }
      pack_at<N>(act + row * F + f) = result;
      gates_at = gates;
      ups_at = ups;
    }
    product = lanes.sum(product);
    if (d_weights != nullptr && slot >= 0 && lanes.index() == 0) d_weights[slot] = product;
  });
}

}  // namespace

void swiglu(const at::Tensor& hidden, const RowWeights& rows, const at::Tensor& act) {
  with_packs(act.size(1), {hidden, act},
             [&](auto zero, auto pack) { activate<decltype(zero), pack()>(hidden, rows, act); });
}

void swiglu_backward(const at::Tensor& hidden, const RowWeights& rows, const at::Tensor& d_act,
                     const at::Tensor& act, const at::Tensor& d_weights) {
  with_packs(act.size(1), {hidden, d_act, act}, [&](auto zero, auto pack) {
    backward<decltype(zero), pack()>(hidden, rows, d_act, act, d_weights);
  });
}

}  // namespace emo::device
