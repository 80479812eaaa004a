// Causal attention confined to spans (model/host/attention.h) on a device: libtorch's flash
// attention with cumulative lengths on a GPU in bf16 (Dao 2023, arXiv 2307.08691), else
// plain_attention.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/backend.h"
#include "model/placed_slice.h"

namespace emo::device {

// qkv S [T, 3 D], rotated already. Flash attention's logsumexp is f32 [H, T].
AttentionKept attention(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv);

// The same in decoding: first puts the slice's keys and values into a layer of its cache S [slots,
// capacity, 2 D], then attends to what is there. Keeps nothing for a backward pass.
at::Tensor attention_with_cache(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                                const at::Tensor& cache);

// d_qkv S [T, 3 D].
at::Tensor attention_backward(const PlacedSlice& slice, int64_t heads, const at::Tensor& qkv,
                              const AttentionKept& kept, const at::Tensor& d_out);

}  // namespace emo::device
