// One transformer block, pre-norm (emo-facts 2.2):
//   h = x + Attention(RMSNorm(x)),  y = h + FeedForward(RMSNorm(h))
// where FeedForward is the mixture of experts, or a dense layer. With ModelConfig::qk_norm queries
// and keys are normalised before they are rotated (OLMoE).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/host/key_value_cache.h"
#include "model/micro_batch.h"
#include "model/moe_layer.h"
#include "model/pass.h"

namespace emo {

// What a block keeps from its forward pass for its backward pass. Stored, here and below, is the
// type of the pass's precision: float or Bf16.
struct BlockActivations {
  at::Tensor x;                          // [T, D] input
  at::Tensor attention_input;            // Stored [T, D] normalised x
  at::Tensor attention_reciprocal;       // [T] of the norm
  at::Tensor qk_raw;                     // Stored [T, 2 D] before their norm, where there is one
  at::Tensor qk_reciprocal;              // [T, 2] of that norm
  at::Tensor qkv;                        // Stored [T, 3 D] rotated
  at::Tensor attended;                   // Stored [T, D]
  at::Tensor logsumexp;                  // [T, H]
  at::Tensor h;                          // [T, D]
  at::Tensor feed_forward_input;         // Stored [T, D] normalised h
  at::Tensor feed_forward_reciprocal;    // [T]
  MoeActivations moe;                    // in a MoE layer
  std::vector<at::Tensor> dense_hidden;  // Stored, in a dense layer
};

struct BlockBuffers {
  at::Tensor d_hidden;    // [T, D] gradient of a normalised input
  at::Tensor d_stored;    // Stored [T, D] gradient of what the block, or its first half, added to
  at::Tensor d_attended;  // Stored [T, D]
  at::Tensor d_qkv;       // Stored [T, 3 D]
  std::vector<float> partial;
  FeedForwardBuffers feed_forward;
};

// Collective over ep in a MoE layer. Reads kept->x, fills the rest of it; overwrites y [T, D]. With
// a cache in the pass, which must be of fp32, layer `layer` of it gives each attention span the
// tokens before it, and takes its own; without: every span begins here.
void block_forward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                   int64_t layer, BlockActivations* kept, BlockBuffers* buffers, at::Tensor* y);

// Collective over ep in a MoE layer. d [T, D] is the gradient of y and becomes that of x; adds to
// the gradients, but see BlockContext::onto_expert_gradients.
// REQUIRES: `kept` as block_forward() left it, of the same slice.
void block_backward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                    const RouterLosses& losses, BlockActivations* kept, BlockBuffers* buffers,
                    LayerWeights* gradients, at::Tensor* d);

}  // namespace emo
