// Causal attention confined to spans (model/host/attention.h) on a device: libtorch's flash
// attention with cumulative lengths on a GPU in bf16 (Dao 2023, arXiv 2307.08691), else
// plain_attention.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/device/slice.h"

namespace emo::device {

// What the backward pass needs of the forward pass; all but out and logsumexp are flash
// attention's.
struct AttentionKept {
  at::Tensor out;        // S [T, D]
  at::Tensor logsumexp;  // f32 [T, H], flash attention: [H, T]
  at::Tensor random_state, unused;
};

// qkv S [T, 3 D], rotated already.
AttentionKept attention(const DeviceSlice& slice, int64_t heads, const at::Tensor& qkv);

// The same in decoding: first puts the slice's keys and values into a layer of its cache S [slots,
// capacity, 2 D], then attends to what is there. Keeps nothing for a backward pass.
at::Tensor attention_with_cache(const DeviceSlice& slice, int64_t heads, const at::Tensor& qkv,
                                const at::Tensor& cache);

// d_qkv S [T, 3 D].
at::Tensor attention_backward(const DeviceSlice& slice, int64_t heads, const at::Tensor& qkv,
                              const AttentionKept& kept, const at::Tensor& d_out);

}  // namespace emo::device
