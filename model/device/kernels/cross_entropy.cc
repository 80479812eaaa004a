#include "model/device/kernels/cross_entropy.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S>
void rows(const at::Tensor& all_logits, const at::Tensor& all_labels, float scale, float z_weight,
          const at::Tensor& all_losses, const at::Tensor& all_z_squares) {
  const int64_t V = all_logits.size(1);
  auto* logits = all_logits.mutable_data_ptr<S>();
  const auto* labels = all_labels.const_data_ptr<int32_t>();
  auto* losses = all_losses.mutable_data_ptr<float>();
  auto* z_squares = all_z_squares.mutable_data_ptr<float>();
  for_each_row(
      all_logits.device(), all_logits.size(0), [=] EMO_HOST_DEVICE(int64_t row, Lanes lanes) {
        S* z = logits + row * V;
        const int32_t label = labels[row];
        float largest = -INFINITY;
        for (int64_t v = lanes.index(); v < V; v += lanes.count()) {
          largest = fmaxf(largest, static_cast<float>(z[v]));
        }
        largest = lanes.max(largest);
        float sum = 0;
        for (int64_t v = lanes.index(); v < V; v += lanes.count()) {
          sum += expf(static_cast<float>(z[v]) - largest);
        }
        sum = lanes.sum(sum);
        const float logsumexp = largest + logf(sum);
        const float label_logit = label < 0 ? 0.0f : static_cast<float>(z[label]);
        // All lanes have read the label's logit before one of them overwrites it.
        const float at_label = lanes.max(label_logit);
        const float factor = label < 0 ? 0.0f : scale * (1.0f + 2.0f * z_weight * logsumexp) / sum;
        for (int64_t v = lanes.index(); v < V; v += lanes.count()) {
          float gradient = factor * expf(static_cast<float>(z[v]) - largest);
          if (v == label) gradient -= scale;
          z[v] = static_cast<S>(gradient);
        }
        if (lanes.index() != 0) return;
        losses[row] = label < 0 ? 0.0f : logsumexp - at_label;
        z_squares[row] = label < 0 ? 0.0f : logsumexp * logsumexp;
      });
}

}  // namespace

void cross_entropy_and_gradient(const at::Tensor& logits, const at::Tensor& labels, float scale,
                                float z_weight, const at::Tensor& losses,
                                const at::Tensor& z_squares) {
  with_scalar(logits.scalar_type(), [&](auto zero) {
    rows<decltype(zero)>(logits, labels, scale, z_weight, losses, z_squares);
  });
}

}  // namespace emo::device
