// One transformer block on a device: the order of computation of model/block.h and
// model/moe_layer.h. Activations and gradients are S, fp32 or bf16, as the parameters; router
// logits and all that follows from them, norms' sums and gradients of parameters are fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/config.h"
#include "model/device/attention.h"
#include "model/device/exchange.h"
#include "model/device/kernels/rope.h"
#include "model/device/router.h"
#include "model/device/slice.h"
#include "model/device/weights.h"
#include "model/pass.h"
#include "parallel/communicator.h"

namespace emo::device {

// What is the same for all blocks of a pass; see BlockContext in model/pass.h.
struct BlockContext {
  const ModelConfig& config;
  const RoutingContract& contract;
  const RopeTensors& rope;
  const std::vector<DevicePlacement>& placements;  // [L]
  const PassOptions& pass;
  bool onto_expert_gradients = true;
  ExchangeCounters* counters = nullptr;  // of the layer's exchange; null: not counted
};

// What a MoE layer keeps for its backward pass.
struct MoeKept {
  RouterInput router_input;
  Routing routing;
  ExchangePlan plan;
  at::Tensor rows;           // S [R, D] inputs of the experts here
  at::Tensor routed_hidden;  // S [pairs, 2 F], unless recomputed
  at::Tensor contributions;  // f32 [T, K], see MoeActivations; only where asked for
};

// What a block keeps for its backward pass.
struct BlockKept {
  at::Tensor x;                                            // S [T, D] input
  at::Tensor attention_input, attention_reciprocal;        // S [T, D], f32 [T]
  at::Tensor qk_raw;                                       // S [T, 2 D] before their norm, if any
  at::Tensor q_reciprocal, k_reciprocal;                   // f32 [T] of that norm
  at::Tensor qkv;                                          // S [T, 3 D] rotated
  AttentionKept attended;                                  //
  at::Tensor h;                                            // S [T, D] after attention
  at::Tensor feed_forward_input, feed_forward_reciprocal;  // S [T, D], f32 [T]
  std::vector<at::Tensor> always_hidden;                   // S [T, 2 F] each, likewise
  MoeKept moe;                                             // in a MoE layer
};

// Collective over ep in a MoE layer. Reads kept->x, fills the rest; answers y S [T, D].
at::Tensor block_forward(const BlockContext& context, const LayerTensors& weights,
                         const DeviceSlice& slice, int64_t layer, BlockKept* kept);

// What the auxiliary losses add to a layer's router gradients; nothing in a dense layer.
struct RouterLosses {
  at::Tensor balance;  // f32 [E]
  float z = 0;
};

// Collective over ep in a MoE layer. d S [T, D] is the gradient of y and becomes that of x; adds to
// the gradients, but see onto_expert_gradients. What was kept is used up.
void block_backward(const BlockContext& context, const LayerTensors& weights,
                    const LayerTensors& gradients, const DeviceSlice& slice,
                    const RouterLosses& losses, const at::Tensor& d, BlockKept* kept);

}  // namespace emo::device
