// Causal multi-head attention confined to spans: a token sees the tokens of its own span up to
// itself. Work and memory are in proportion to the spans' squares, not the rows'.
#pragma once

#include <cstdint>

#include "model/host/scratch.h"

namespace emo {

// A span whose first tokens were in earlier passes (model/key_value_cache.h).
struct CachedSpan {
  const float* keys_values = nullptr;  // [earlier + the span's tokens, 2 D], keys and values
  int64_t earlier = 0;                 // tokens before the span's first one here
};

struct AttentionShape {
  int64_t heads = 0;                   // H
  int64_t head_dim = 0;                // D / H
  const int32_t* span_ends = nullptr;  // [N + 1], the first 0, ascending
  int64_t spans = 0;                   // N
  const CachedSpan* cached = nullptr;  // [N], or null: every span begins here
};

// Stored is float or Bf16: what is kept, and what the products inside a head are of:
// probabilities and the gradients of scores are rounded too. Scores, softmax and sums over blocks
// are fp32.

// qkv [T, 3 D]: queries, keys and values side by side, rotated already. Cached spans, which are
// fp32 only, take keys and values from their cache. Writes out [T, D] and logsumexp [T, H] of the
// scaled scores, for the backward pass.
template <typename Stored>
void attention(const AttentionShape& shape, const Stored* qkv, Stored* out, float* logsumexp,
               Scratch* scratch);

// Overwrites d_qkv [T, 3 D]. Scores are computed again, so nothing of size T^2 is kept.
template <typename Stored>
void attention_backward(const AttentionShape& shape, const Stored* qkv, const Stored* out,
                        const float* logsumexp, const Stored* d_out, Stored* d_qkv,
                        Scratch* scratch);

}  // namespace emo
