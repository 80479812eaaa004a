// The mixture-of-experts layer: router, exchange, routed experts and shared experts,
//   y += sum_k w_k E_k(x) + sum over shared experts of E_s(x).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "model/backend.h"
#include "model/losses.h"
#include "model/pass.h"

namespace emo {

// What the layer keeps from its forward pass for its backward pass. Stored, here and below: see
// backend.h.
struct MoeActivations {
  RouterJitter jitter;  // of what the router saw
  RouterInput router_input;
  Routing routing;
  std::unique_ptr<Plan> plan;
  at::Tensor arrived;                     // Stored, of other ranks' tokens; see Backend::send_rows
  at::Tensor routed_hidden;               // Stored [Q, 2 F], unless recomputed
  std::vector<at::Tensor> shared_hidden;  // of each shared expert Stored [T, 2 F], likewise
  at::Tensor contributions;  // f32 [T, K] length of what each chosen expert adds, w_k |E_k(x)|; 0
                             // where there is none; only where asked for
};

// Memory that all layers share, one after another.
struct MoeBuffers {
  at::Tensor d_arrived;                   // Stored, gradients of other ranks' tokens
  PairResults pairs;                      //
  at::Tensor jittered;                    // Stored [T, D] what the router sees, where it is not x
  at::Tensor d_jittered;                  // Residual [T, D]
  at::Tensor slots;                       // f32 [T, K] gradients of router weights
  at::Tensor d_logits;                    // f32 [T, E]
  at::Tensor routed_hidden;               // where recomputed: see MoeActivations
  std::vector<at::Tensor> shared_hidden;  //
};

// Collective over ep. x Stored [T, D]; adds to y Residual [T, D].
void moe_forward(const BlockContext& context, const LayerWeights& weights, const PlacedSlice& slice,
                 int64_t layer, const at::Tensor& x, MoeActivations* kept, MoeBuffers* buffers,
                 const at::Tensor& y);

// Collective over ep. From dy Stored [T, D]: adds to the gradients, but see onto_expert_gradients,
// and overwrites dx Residual [T, D], which is not dy.
void moe_backward(const BlockContext& context, const LayerWeights& weights, const at::Tensor& x,
                  const at::Tensor& dy, const RouterLosses& losses, MoeActivations* kept,
                  MoeBuffers* buffers, const LayerWeights& gradients, at::Tensor* dx);

}  // namespace emo
