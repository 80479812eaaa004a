#include "model/device/kernels/embedding.h"

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S>
void copy_rows(const at::Tensor& token_of, const at::Tensor& tables, const at::Tensor& xs) {
  const int64_t D = xs.size(1);
  const auto* tokens = token_of.const_data_ptr<int32_t>();
  const auto* table = tables.const_data_ptr<S>();
  auto* x = xs.mutable_data_ptr<S>();
  for_each(xs.device(), xs.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    x[i] = table[static_cast<int64_t>(tokens[i / D]) * D + i % D];
  });
}

// Whoever stands first among equal tokens adds up for all of them.
template <typename S>
void add_rows(const at::Tensor& sorted_tokens, const at::Tensor& orders, const at::Tensor& dxs,
              const at::Tensor& d_tables) {
  const int64_t T = dxs.size(0);
  const int64_t D = dxs.size(1);
  const auto* sorted = sorted_tokens.const_data_ptr<int32_t>();
  const auto* order = orders.const_data_ptr<int64_t>();
  const auto* dx = dxs.const_data_ptr<S>();
  auto* d_table = d_tables.mutable_data_ptr<float>();
  for_each(dxs.device(), T * D, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t first = i / D;
    const int64_t d = i % D;
    const int32_t token = sorted[first];
    if (first > 0 && sorted[first - 1] == token) return;
    float sum = 0;
    for (int64_t at = first; at < T && sorted[at] == token; ++at) {
      sum += static_cast<float>(dx[order[at] * D + d]);
    }
    d_table[static_cast<int64_t>(token) * D + d] += sum;
  });
}

}  // namespace

void embed(const at::Tensor& tokens, const at::Tensor& table, const at::Tensor& x) {
  with_scalar(x.scalar_type(), [&](auto zero) { copy_rows<decltype(zero)>(tokens, table, x); });
}

void embed_backward(const at::Tensor& sorted, const at::Tensor& order, const at::Tensor& dx,
                    const at::Tensor& d_table) {
  with_scalar(dx.scalar_type(),
              [&](auto zero) { add_rows<decltype(zero)>(sorted, order, dx, d_table); });
}

}  // namespace emo::device
