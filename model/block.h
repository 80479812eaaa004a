// One transformer block, pre-norm (emo-facts 2.2):
//   h = x + Attention(RMSNorm(x)),  y = h + FeedForward(RMSNorm(h))
// where FeedForward is the mixture of experts, or a dense layer. With ModelConfig::qk_norm queries
// and keys are normalised before they are rotated (OLMoE).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/backend.h"
#include "model/moe_layer.h"
#include "model/pass.h"

namespace emo {

// What a block keeps from its forward pass for its backward pass. Residual and Stored, here and
// below: see backend.h.
struct BlockActivations {
  at::Tensor x;                          // Residual [T, D] input
  Normalised attention_input;            // normalised x
  QkNormKept qk_norm;                    // where there is one
  at::Tensor qkv;                        // Stored [T, 3 D] rotated
  AttentionKept attended;                //
  at::Tensor h;                          // Residual [T, D]
  Normalised feed_forward_input;         // normalised h
  MoeActivations moe;                    // in a MoE layer
  std::vector<at::Tensor> dense_hidden;  // Stored [T, 2 F], in a dense layer
};

// Memory that all blocks share, one after another.
struct BlockBuffers {
  at::Tensor d_hidden;    // Residual [T, D] gradient of a normalised input
  at::Tensor d_stored;    // Stored [T, D] gradient of what the block, or its first half, added to
  at::Tensor d_attended;  // Stored [T, D]
  at::Tensor d_qkv;       // Stored [T, 3 D]
  MoeBuffers moe;
};

// Collective over ep in a MoE layer. Reads kept->x, fills the rest of it; overwrites y Residual
// [T, D]. With a cache in the pass layer `layer` of it gives each attention span the tokens before
// it, and takes its own; without: every span begins here. On the host a pass with a cache is in
// fp32.
void block_forward(const BlockContext& context, const LayerWeights& weights,
                   const PlacedSlice& slice, int64_t layer, BlockActivations* kept,
                   BlockBuffers* buffers, at::Tensor* y);

// Collective over ep in a MoE layer. d Residual [T, D] is the gradient of y and becomes that of x;
// adds to the gradients, but see BlockContext::onto_expert_gradients.
// REQUIRES: `kept` as block_forward() left it, of the same slice.
void block_backward(const BlockContext& context, const LayerWeights& weights,
                    const PlacedSlice& slice, const RouterLosses& losses, BlockActivations* kept,
                    BlockBuffers* buffers, const LayerWeights& gradients, const at::Tensor& d);

}  // namespace emo
