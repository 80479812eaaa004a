#include "model/device/kernels/balance.h"

#include "model/device/kernel.h"

namespace emo::device {

void score_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                    double divisor, const at::Tensor& gradient) {
  const int64_t E = gradient.size(0);
  const auto* count = counts.const_data_ptr<int64_t>();
  const auto* of_all = tokens.const_data_ptr<int64_t>();
  auto* out = gradient.mutable_data_ptr<float>();
  const double factor = static_cast<double>(E) / static_cast<double>(top_k) / divisor;
  for_each(gradient.device(), E, [=] EMO_HOST_DEVICE(int64_t e) {
    const auto all = static_cast<double>(*of_all);
    out[e] = all > 0 ? static_cast<float>(factor * static_cast<double>(count[e]) / all) : 0.0f;
  });
}

void document_score_gradient(const at::Tensor& counts, const at::Tensor& pool_sizes, int64_t top_k,
                             double divisor, const at::Tensor& gradient) {
  const int64_t E = counts.size(1);
  const auto* count = counts.const_data_ptr<int32_t>();
  const int32_t* size = data_or_null<int32_t>(pool_sizes);
  auto* out = gradient.mutable_data_ptr<float>();
  const auto K = static_cast<double>(top_k);
  for_each_row(counts.device(), counts.size(0), [=] EMO_HOST_DEVICE(int64_t d, Lanes lanes) {
    long long chosen = 0;
    for (int64_t e = lanes.index(); e < E; e += lanes.count()) chosen += count[d * E + e];
    const auto slots = static_cast<double>(lanes.sum(chosen));
    const auto pool = static_cast<double>(size != nullptr && size[d] < E ? size[d] : E);
    const double factor = slots > 0 ? pool * K / (slots * slots * divisor) : 0;
    for (int64_t e = lanes.index(); e < E; e += lanes.count()) {
      out[d * E + e] = static_cast<float>(factor * count[d * E + e]);
    }
  });
}

void add_layer_sums(const LayerSums& layer, const at::Tensor& sums) {
  const int64_t E = layer.counts.size(0);
  const int64_t gradients = layer.gradient.numel();
  const int64_t T = layer.logsumexp.size(0);
  const int64_t N = layer.document_entropy.defined() ? layer.document_entropy.size(0) : 0;
  const auto* gradient = layer.gradient.const_data_ptr<float>();
  const auto* score_sum = layer.score_sum.const_data_ptr<double>();
  const auto* counts = layer.counts.const_data_ptr<int64_t>();
  const auto* lse = layer.logsumexp.const_data_ptr<float>();
  const int32_t* label = data_or_null<int32_t>(layer.labels);
  const auto* token_entropy = layer.token_entropy.const_data_ptr<float>();
  const double* document_entropy = data_or_null<double>(layer.document_entropy);
  const int32_t* pool_sizes = data_or_null<int32_t>(layer.pool_sizes);
  auto* sum_of = sums.mutable_data_ptr<double>();
  // A row for each number but the counts; those behind them.
  for_each_long_row(sums.device(), 7, [=] EMO_HOST_DEVICE(int64_t field, BlockLanes lanes) {
    const int64_t n = field == 0 ? gradients : field <= 2 ? T : N;
    double sum = 0;
    for (int64_t i = lanes.index(); i < n; i += lanes.count()) {
      switch (field) {
        case 0:
          sum += static_cast<double>(gradient[i]) * score_sum[i];
          break;
        case 1:
          if (label == nullptr || label[i] >= 0) sum += static_cast<double>(lse[i]) * lse[i];
          break;
        case 2:
          sum += token_entropy[i];
          break;
        case 4:
          sum += document_entropy[i];
          break;
        case 5:
          sum += static_cast<double>(pool_sizes[i] < E ? pool_sizes[i] : E);
          break;
        default:
          break;
      }
    }
    sum = lanes.sum(sum);
    if (field == 3) sum = static_cast<double>(T);
    if (field == 6) sum = static_cast<double>(N);
    if (lanes.index() == 0) sum_of[field] += sum;
  });
  for_each(sums.device(), E,
           [=] EMO_HOST_DEVICE(int64_t e) { sum_of[7 + e] += static_cast<double>(counts[e]); });
}

void add_head_sums(const at::Tensor& losses, const at::Tensor& z_squares, const at::Tensor& labels,
                   const at::Tensor& sums) {
  const int64_t T = losses.size(0);
  const auto* loss = losses.const_data_ptr<float>();
  const auto* z = z_squares.const_data_ptr<float>();
  const auto* label = labels.const_data_ptr<int32_t>();
  auto* sum_of = sums.mutable_data_ptr<double>();
  for_each_long_row(sums.device(), 3, [=] EMO_HOST_DEVICE(int64_t field, BlockLanes lanes) {
    double sum = 0;
    for (int64_t t = lanes.index(); t < T; t += lanes.count()) {
      if (label[t] < 0) continue;
      sum += field == 0 ? loss[t] : field == 1 ? z[t] : 1.0f;
    }
    sum = lanes.sum(sum);
    if (lanes.index() == 0) sum_of[field] += sum;
  });
}

}  // namespace emo::device
