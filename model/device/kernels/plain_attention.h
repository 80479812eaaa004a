// Attention (model/host/attention.h) without any library: for fp32, where flash attention has none,
// and for the CPU. Work and memory as there; a warp, not a matrix unit, does it.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/spans.h"

namespace emo::device {

constexpr int64_t kMostHeadDim = 256;

// qkv S [T, 3 D], rotated; writes out S [T, D] and logsumexp f32 [T, H].
void plain_attention(const TokenSpans& spans, const at::Tensor& qkv, const at::Tensor& out,
                     const at::Tensor& logsumexp);

// The same queries over keys and values S [rows, 2 D] that lie elsewhere, the queries' own among
// them: token t sees the rows [keys.begin, keys.end) of t.
void cached_attention(const TokenSpans& keys, const at::Tensor& qkv, const at::Tensor& keys_values,
                      const at::Tensor& out, const at::Tensor& logsumexp);

// Overwrites d_qkv S [T, 3 D].
void plain_attention_backward(const TokenSpans& spans, const at::Tensor& qkv, const at::Tensor& out,
                              const at::Tensor& logsumexp, const at::Tensor& d_out,
                              const at::Tensor& d_qkv);

}  // namespace emo::device
