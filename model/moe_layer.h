// The mixture-of-experts layer: router, exchange, routed experts and shared experts,
//   y += sum_k w_k E_k(x) + sum over shared experts of E_s(x).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/config.h"
#include "model/host/experts.h"
#include "model/host/scratch.h"
#include "model/host/stored.h"
#include "model/micro_batch.h"
#include "model/parameters.h"
#include "model/pass.h"
#include "model/router.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"

namespace emo {

// What the layer keeps from its forward pass for its backward pass. Stored, here and below, is what
// the pass stores: float or Bf16.
struct MoeActivations {
  at::Tensor logits;  // [T, E]
  RouterInput router_input;
  Routing routing;
  ExchangePlan plan;
  at::Tensor arrived;                     // Stored [R - own_rows, D] inputs from other ranks
  at::Tensor routed_hidden;               // Stored [Q, 2 F], unless recomputed
  std::vector<at::Tensor> always_hidden;  // per shared expert Stored [T, 2 F], unless recomputed
  at::Tensor contributions;  // [T, K] length of what each chosen expert adds, w_k |E_k(x)|; 0 where
                             // there is none; only where asked for
};

// Buffers that all layers share.
struct FeedForwardBuffers {
  at::Tensor act, d_act;       // Stored [T, F] of shared experts and dense layers
  at::Tensor out, d_out;       // Stored [R - own_rows, D] leaving, and gradients arriving
  at::Tensor slots;            // [T, K] gradients of router weights
  at::Tensor d_logits;         // [T, E]
  at::Tensor d_logits_stored;  // the same, rounded
  at::Tensor routed_hidden;    // where recomputed: see MoeActivations
  std::vector<at::Tensor> always_hidden;  //
  ExpertBuffers experts;
  ExchangeBuffers exchange;
  Scratch scratch;
};

// What the auxiliary losses add to a layer's router gradients, as route_backward() takes it.
struct RouterLosses {
  std::vector<float> balance;  // [E]
  float z = 0;
};

// Collective over ep. x Stored [T, D]; adds to y [T, D].
template <typename Stored>
void moe_forward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                 int64_t layer, const at::Tensor& x, MoeActivations* kept,
                 FeedForwardBuffers* buffers, at::Tensor* y);

// Collective over ep. From dy Stored [T, D]: adds to the gradients, but see onto_expert_gradients,
// and overwrites dx [T, D], which is not dy.
template <typename Stored>
void moe_backward(const BlockContext& context, const LayerWeights& weights, const at::Tensor& x,
                  const at::Tensor& dy, const RouterLosses& losses, MoeActivations* kept,
                  FeedForwardBuffers* buffers, LayerWeights* gradients, at::Tensor* dx);

// The part that every token goes through: shared experts, or a dense layer's feed-forward. x and dy
// Stored [T, D]. Forward: adds to y [T, D], keeps `hidden`. Backward: adds to the gradients,
// overwrites dx [T, D] and `hidden`.
template <typename Stored>
void always_forward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                    std::vector<at::Tensor>* hidden, FeedForwardBuffers* buffers, at::Tensor* y);
template <typename Stored>
void always_backward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                     const at::Tensor& dy, std::vector<at::Tensor>* hidden,
                     FeedForwardBuffers* buffers, std::vector<FeedForwardView>* gradients,
                     at::Tensor* dx);

}  // namespace emo
