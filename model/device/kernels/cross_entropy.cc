#include "model/device/kernels/cross_entropy.h"

#include <cmath>

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S, int N>
void rows(const at::Tensor& all_logits, const at::Tensor& all_labels, float scale, float z_weight,
          const at::Tensor& all_losses, const at::Tensor& all_z_squares) {
  const int64_t V = all_logits.size(1);
  auto* logits = all_logits.mutable_data_ptr<S>();
  const auto* labels = all_labels.const_data_ptr<int32_t>();
  auto* losses = all_losses.mutable_data_ptr<float>();
  auto* z_squares = all_z_squares.mutable_data_ptr<float>();
  for_each_long_row(
      all_logits.device(), all_logits.size(0), [=] EMO_HOST_DEVICE(int64_t row, BlockLanes lanes) {
        S* z = logits + row * V;
        const int32_t label = labels[row];
        // Read by all lanes before one of them, behind the sums below, overwrites it.
        const float label_logit = label < 0 ? 0.0f : static_cast<float>(z[label]);
        // One pass for both: the sum is over exponentials less the largest logit so far.
        float largest = -INFINITY;
        float sum = 0;
        for (int64_t v = lanes.index() * N; v < V; v += lanes.count() * N) {
          const Pack<S, N> here = pack_at<N>(z + v);
          float grown = largest;
          for (const S logit : here.at) grown = fmaxf(grown, static_cast<float>(logit));
          sum *= expf(largest - grown);
          for (const S logit : here.at) sum += expf(static_cast<float>(logit) - grown);
          largest = grown;
        }
        const float own_largest = largest;
        largest = lanes.max(largest);
        sum = lanes.sum(sum * expf(own_largest - largest));
        const float logsumexp = largest + logf(sum);
        const float factor = label < 0 ? 0.0f : scale * (1.0f + 2.0f * z_weight * logsumexp) / sum;
        for (int64_t v = lanes.index() * N; v < V; v += lanes.count() * N) {
          Pack<S, N> here = pack_at<N>(z + v);
          for (int i = 0; i < N; ++i) {
            float gradient = factor * expf(static_cast<float>(here.at[i]) - largest);
            if (v + i == label) gradient -= scale;
            here.at[i] = static_cast<S>(gradient);
          }
          pack_at<N>(z + v) = here;
        }
        if (lanes.index() != 0) return;
        losses[row] = label < 0 ? 0.0f : logsumexp - label_logit;
        z_squares[row] = label < 0 ? 0.0f : logsumexp * logsumexp;
      });
}

}  // namespace

void cross_entropy_and_gradient(const at::Tensor& logits, const at::Tensor& labels, float scale,
                                float z_weight, const at::Tensor& losses,
                                const at::Tensor& z_squares) {
  with_packs(logits.size(1), {logits}, [&](auto zero, auto pack) {
    rows<decltype(zero), pack()>(logits, labels, scale, z_weight, losses, z_squares);
  });
}

}  // namespace emo::device
