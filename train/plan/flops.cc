#include "train/plan/flops.h"

namespace emo {
namespace {

int64_t experts_of_token(const ModelConfig& c, int64_t layer) {
  return c.num_shared_experts + c.routed_top_k(layer);
}

}  // namespace

double flops_per_token(const ModelConfig& c, const std::vector<int32_t>& attention_ends) {
  const auto D = static_cast<double>(c.d_model);
  double pairs = 0;  // (query, key) pairs that attention looks at
  double tokens = 0;
  for (const int32_t end : attention_ends) {
    const double length = end - tokens;
    pairs += length * (length + 1) / 2;
    tokens = end;
  }
  double products = D * static_cast<double>(c.vocab_size);  // the head
  for (int64_t layer = 0; layer < c.n_layers; ++layer) {
    products += 4 * D * D + (tokens > 0 ? 2 * D * pairs / tokens : 0);
    if (c.is_dense(layer)) {
      products += 3 * D * static_cast<double>(c.d_ffn);
    } else {
      products += D * static_cast<double>(c.routed_experts(layer)) +
                  3 * D * static_cast<double>(c.d_expert * experts_of_token(c, layer));
    }
  }
  return 6 * products;
}

double reference_flops_per_token(const ModelConfig& c, int64_t sequence_length) {
  const auto D = static_cast<double>(c.d_model);
  double flops = 6 * D * static_cast<double>(c.vocab_size);
  for (int64_t layer = 0; layer < c.n_layers; ++layer) {
    flops += 6 * 4 * D * D + 12 * D * static_cast<double>(sequence_length);
    if (c.is_dense(layer)) {
      flops += 6 * 3 * D * static_cast<double>(c.d_ffn);
    } else {
      flops += 6 * D * static_cast<double>(c.experts(layer)) +
               6 * 3 * D * static_cast<double>(c.d_expert * experts_of_token(c, layer));
    }
  }
  return flops;
}

}  // namespace emo
