#include "model/device/kernels/router_gradient.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {

void add_softmax_gradient(const at::Tensor& logits, const Spans& spans, const SoftmaxLosses& losses,
                          const at::Tensor& d_logits) {
  const int64_t E = logits.size(1);
  const int64_t K = losses.experts.defined() ? losses.experts.size(1) : 0;
  const auto* z_of = logits.const_data_ptr<float>();
  const auto* span_of = spans.span_of.const_data_ptr<int32_t>();
  const auto* lse_of = losses.logsumexp.const_data_ptr<float>();
  const uint8_t* pool_of = data_or_null<uint8_t>(losses.pools);
  const float* balance = data_or_null<float>(losses.balance);
  const bool by_document = losses.balance.defined() && losses.balance.dim() == 2;
  const uint8_t* balance_pool = data_or_null<uint8_t>(losses.balance_pool);
  const int32_t* label = data_or_null<int32_t>(losses.labels);
  const int32_t* experts = data_or_null<int32_t>(losses.experts);
  const float* d_weights = data_or_null<float>(losses.d_weights);
  const float factor = losses.z;
  auto* dz_of = d_logits.mutable_data_ptr<float>();
  for_each_row(logits.device(), logits.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const float* z = z_of + t * E;
    const int64_t pool_row = static_cast<int64_t>(span_of[t]) * E;
    const int64_t balance_row = by_document ? pool_row : 0;
    const float lse = lse_of[t];
    const bool in_losses = label == nullptr || label[t] >= 0;
    // The loss's derivative by the score of e, and the score.
    const auto derivative = [=](int64_t e) {
      float g = 0;
      if (in_losses && balance != nullptr &&
          (balance_pool == nullptr || balance_pool[pool_row + e] != 0)) {
        g = balance[balance_row + e];
      }
      for (int64_t slot = t * K; slot < t * K + K; ++slot) {
        if (experts[slot] == static_cast<int32_t>(e)) g += d_weights[slot];
      }
      return g;
    };
    const auto score = [=](int64_t e) {
      return pool_of == nullptr || pool_of[pool_row + e] != 0 ? expf(z[e] - lse) : 0.0f;
    };
    float inner = 0;
    for (int64_t e = lanes.index(); e < E; e += lanes.count()) inner += score(e) * derivative(e);
    const float shift = (in_losses ? 2.0f * factor * lse : 0.0f) - lanes.sum(inner);
    for (int64_t e = lanes.index(); e < E; e += lanes.count()) {
      dz_of[t * E + e] += score(e) * (derivative(e) + shift);
    }
  });
}

}  // namespace emo::device
