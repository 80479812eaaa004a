#include "model/device/attention.h"

#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <array>
#include <cmath>
#include <tuple>

#include "model/device/kernels/plain_attention.h"

namespace emo::device {
namespace {

// What libtorch's flash attention takes.
bool use_flash(const at::Tensor& qkv, int64_t heads) {
  const int64_t head_dim = qkv.size(1) / 3 / heads;
  return qkv.is_cuda() && qkv.scalar_type() == at::kBFloat16 && qkv.size(0) > 0 &&
         head_dim % 8 == 0 && head_dim <= 256;
}

// Queries (0), keys (1) or values (2) as [T, H, head dim]; a view.
at::Tensor heads_of(const at::Tensor& qkv, int64_t which, int64_t heads) {
  const int64_t D = qkv.size(1) / 3;
  return qkv.slice(1, which * D, (which + 1) * D).unflatten(1, {heads, D / heads});
}

double scale_of(const at::Tensor& qkv, int64_t heads) {
  const int64_t head_dim = qkv.size(1) / 3 / heads;
  return 1.0 / std::sqrt(static_cast<double>(head_dim));
}

}  // namespace

AttentionKept attention(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv) {
  const int64_t T = qkv.size(0);
  const int64_t D = qkv.size(1) / 3;
  AttentionKept kept;
  if (!use_flash(qkv, heads)) {
    kept.out = at::empty({T, D}, qkv.options());
    kept.logsumexp = at::empty({T, heads}, qkv.options().dtype(at::kFloat));
    plain_attention(slice.attention_spans, qkv, kept.out, kept.logsumexp);
    return kept;
  }
  at::Tensor debug_mask;
  std::tie(kept.out, kept.logsumexp, kept.random_state, kept.unused, debug_mask) =
      at::_flash_attention_forward(
          heads_of(qkv, 0, heads), heads_of(qkv, 1, heads), heads_of(qkv, 2, heads),
          slice.attention_ends, slice.attention_ends, slice.longest_attention_span,
          slice.longest_attention_span, /*dropout_p=*/0, /*is_causal=*/true,
          /*return_debug_mask=*/false, scale_of(qkv, heads));
  kept.out = kept.out.reshape({T, D});
  return kept;
}

at::Tensor attention_with_cache(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                                const at::Tensor& cache) {
  const int64_t T = qkv.size(0);
  const int64_t D = qkv.size(1) / 3;
  const at::Tensor rows = cache.view({-1, 2 * D});
  rows.index_copy_(0, slice.cached.rows, qkv.slice(1, D, 3 * D));
  at::Tensor out = at::empty({T, D}, qkv.options());
  cached_attention(slice.cached.keys, qkv, rows, out,
                   at::empty({T, heads}, qkv.options().dtype(at::kFloat)));
  return out;
}

at::Tensor attention_backward(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                              const AttentionKept& kept, const at::Tensor& d_out) {
  const at::Tensor d_qkv = at::empty_like(qkv);
  if (!use_flash(qkv, heads)) {
    plain_attention_backward(slice.attention_spans, qkv, kept.out, kept.logsumexp, d_out, d_qkv);
    return d_qkv;
  }
  const std::array<int64_t, 2> by_head = {heads, qkv.size(1) / 3 / heads};
  const auto [d_q, d_k, d_v] = at::_flash_attention_backward(
      d_out.unflatten(1, by_head), heads_of(qkv, 0, heads), heads_of(qkv, 1, heads),
      heads_of(qkv, 2, heads), kept.out.unflatten(1, by_head), kept.logsumexp, slice.attention_ends,
      slice.attention_ends, slice.longest_attention_span, slice.longest_attention_span,
      /*dropout_p=*/0, /*is_causal=*/true, kept.random_state, kept.unused, scale_of(qkv, heads));
  heads_of(d_qkv, 0, heads).copy_(d_q);
  heads_of(d_qkv, 1, heads).copy_(d_k);
  heads_of(d_qkv, 2, heads).copy_(d_v);
  return d_qkv;
}

}  // namespace emo::device
