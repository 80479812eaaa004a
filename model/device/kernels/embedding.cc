#include "model/device/kernels/embedding.h"

#include "model/device/kernel.h"

namespace emo::device {
namespace {

template <typename S, int N>
void copy_rows(const at::Tensor& token_of, const at::Tensor& tables, const at::Tensor& xs) {
  const int64_t D = xs.size(1);
  const auto* tokens = token_of.const_data_ptr<int32_t>();
  const auto* table = tables.const_data_ptr<S>();
  auto* x = xs.mutable_data_ptr<S>();
  for_each_row(xs.device(), xs.size(0), [=] EMO_HOST_DEVICE(int64_t t, Lanes lanes) {
    const S* row = table + static_cast<int64_t>(tokens[t]) * D;
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      pack_at<N>(x + t * D + d) = pack_at<N>(row + d);
    }
  });
}

// Whoever stands first among equal tokens adds up for all of them.
template <typename S, int N>
void add_rows(const at::Tensor& sorted_tokens, const at::Tensor& orders, const at::Tensor& dxs,
              const at::Tensor& d_tables) {
  const int64_t T = dxs.size(0);
  const int64_t D = dxs.size(1);
  const auto* sorted = sorted_tokens.const_data_ptr<int32_t>();
  const auto* order = orders.const_data_ptr<int64_t>();
  const auto* dx = dxs.const_data_ptr<S>();
  auto* d_table = d_tables.mutable_data_ptr<float>();
  for_each_long_row(dxs.device(), T, [=] EMO_HOST_DEVICE(int64_t first, BlockLanes lanes) {
    const int32_t token = sorted[first];
    if (first > 0 && sorted[first - 1] == token) return;
    for (int64_t d = lanes.index() * N; d < D; d += lanes.count() * N) {
      Pack<float, N>& row = pack_at<N>(d_table + static_cast<int64_t>(token) * D + d);
      Pack<float, N> sums{};
      for (int64_t at = first; at < T && sorted[at] == token; ++at) {
        const Pack<S, N> values = pack_at<N>(dx + order[at] * D + d);
        for (int i = 0; i < N; ++i) sums.at[i] += static_cast<float>(values.at[i]);
      }
      for (int i = 0; i < N; ++i) row.at[i] += sums.at[i];
    }
  });
}

}  // namespace

void embed(const at::Tensor& tokens, const at::Tensor& table, const at::Tensor& x) {
  with_packs(x.size(1), {x, table},
             [&](auto zero, auto pack) { copy_rows<decltype(zero), pack()>(tokens, table, x); });
}

void embed_backward(const at::Tensor& sorted, const at::Tensor& order, const at::Tensor& dx,
                    const at::Tensor& d_table) {
  with_packs(dx.size(1), {dx, d_table}, [&](auto zero, auto pack) {
    add_rows<decltype(zero), pack()>(sorted, order, dx, d_table);
  });
}

}  // namespace emo::device
