#include "model/host/balance.h"

#include <algorithm>
#include <numeric>

#include "parallel/buffers.h"

namespace emo {
namespace {

// Gradient times score, over all experts, or over those of all documents.
void add_balance_loss(const Routing& routing, const at::Tensor& balance, double* sum) {
  const at::Tensor& scores = balance.dim() == 2 ? routing.document_score_sum : routing.score_sum;
  const auto* gradient = balance.const_data_ptr<float>();
  const auto* score_sum = scores.const_data_ptr<double>();
  for (int64_t i = 0; i < balance.numel(); ++i) {
    *sum += static_cast<double>(gradient[i]) * score_sum[i];
  }
}

}  // namespace

void balance_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                      double divisor, at::Tensor* gradient) {
  const int64_t E = counts.size(0);
  const auto* count = counts.const_data_ptr<int64_t>();
  const auto of_all = static_cast<double>(*tokens.const_data_ptr<int64_t>());
  const double factor = static_cast<double>(E) / static_cast<double>(top_k) / divisor;
  auto* out = shape_buffer(gradient, {E}).mutable_data_ptr<float>();
  for (int64_t e = 0; e < E; ++e) {
    out[e] =
        of_all > 0 ? static_cast<float>(factor * static_cast<double>(count[e]) / of_all) : 0.0f;
  }
}

void document_balance_gradient(const Routing& routing, double divisor, at::Tensor* gradient) {
  const int64_t N = routing.document_counts.size(0);
  const int64_t E = routing.document_counts.size(1);
  const auto* counts = routing.document_counts.const_data_ptr<int32_t>();
  const int32_t* size =
      routing.pool_sizes.defined() ? routing.pool_sizes.const_data_ptr<int32_t>() : nullptr;
  auto* out = shape_buffer(gradient, {N, E}).mutable_data_ptr<float>();
  for (int64_t d = 0; d < N; ++d) {
    const int32_t* count = counts + d * E;
    // Each token chose K: their number is chosen / K.
    const auto chosen = static_cast<double>(std::accumulate(count, count + E, int64_t{0}));
    const auto K = static_cast<double>(routing.experts.size(1));
    const auto pool = static_cast<double>(size != nullptr ? std::min<int64_t>(size[d], E) : E);
    const double factor = chosen > 0 ? pool * K / (chosen * chosen * divisor) : 0;
    for (int64_t e = 0; e < E; ++e) out[d * E + e] = static_cast<float>(factor * count[e]);
  }
}

void add_router_sums(const Routing& routing, const RoutingContract& contract,
                     const at::Tensor& balance, const at::Tensor& z_labels,
                     const at::Tensor& sums) {
  const int64_t T = routing.experts.size(0);
  const int64_t E = routing.counts.size(0);
  const int64_t N = routing.pool_sizes.defined() ? routing.pool_sizes.size(0) : 0;
  const auto* counts = routing.counts.const_data_ptr<int64_t>();
  const int32_t* label = z_labels.defined() ? z_labels.const_data_ptr<int32_t>() : nullptr;
  const auto* logsumexp = routing.z_logsumexp(contract).const_data_ptr<float>();
  const auto* token_entropy = routing.token_entropy.const_data_ptr<float>();
  auto* sum = sums.mutable_data_ptr<double>();
  add_balance_loss(routing, balance, &sum[0]);
  for (int64_t e = 0; e < E; ++e) sum[7 + e] += static_cast<double>(counts[e]);
  for (int64_t t = 0; t < T; ++t) {
    if (label == nullptr || label[t] >= 0) {
      sum[1] += static_cast<double>(logsumexp[t]) * logsumexp[t];
    }
    sum[2] += token_entropy[t];
  }
  sum[3] += static_cast<double>(T);
  for (int64_t d = 0; d < N; ++d) {
    sum[4] += routing.document_entropy.const_data_ptr<double>()[d];
    sum[5] +=
        static_cast<double>(std::min<int64_t>(routing.pool_sizes.const_data_ptr<int32_t>()[d], E));
  }
  sum[6] += static_cast<double>(N);
}

}  // namespace emo
