// The mixture-of-experts layer: router, exchange, routed experts and shared experts,
//   y += sum_k w_k E_k(x) + sum over shared experts of E_s(x).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/config.h"
#include "model/host/experts.h"
#include "model/host/scratch.h"
#include "model/host/stored.h"
#include "model/parameters.h"
#include "model/profile.h"
#include "model/router.h"
#include "parallel/communicator.h"
#include "parallel/expert_exchange.h"

namespace emo {

// What the layer keeps from its forward pass for its backward pass. E, here and below, is what the
// pass stores: float or Bf16.
struct MoeActivations {
  at::Tensor logits;  // [T, E]
  RouterInput router_input;
  Routing routing;
  ExchangePlan plan;
  at::Tensor arrived;                     // E [R - own_rows, D] inputs from other ranks
  at::Tensor routed_hidden;               // E [Q, 2 F], unless recomputed
  std::vector<at::Tensor> always_hidden;  // per shared expert E [T, 2 F], unless recomputed
  at::Tensor contributions;  // [T, K] length of what each chosen expert adds, w_k |E_k(x)|; 0 where
                             // there is none; only where asked for
};

// Buffers that all layers share.
struct FeedForwardBuffers {
  at::Tensor act, d_act;                  // E [T, F] of shared experts and dense layers
  at::Tensor out, d_out;                  // E [R - own_rows, D] leaving, and gradients arriving
  at::Tensor slots;                       // [T, K] gradients of router weights
  at::Tensor d_logits;                    // [T, E]
  at::Tensor d_logits_stored;             // the same, rounded
  at::Tensor routed_hidden;               // where recomputed: see MoeActivations
  std::vector<at::Tensor> always_hidden;  //
  ExpertBuffers experts;
  ExchangeBuffers exchange;
  Scratch scratch;
};

// What is the same for all layers of a forward pass.
struct MoeContext {
  const ModelConfig* config;
  const RoutingContract* contract;
  Communicator* ep;
  ExchangeMode mode = ExchangeMode::kOncePerRank;
  bool routed_off = false;          // evaluation: as if the routed experts answered zero
  bool want_contributions = false;  // fill MoeActivations::contributions
  at::Tensor labels = {};           // RouterInput::labels
  Recompute recompute = Recompute::kNone;
  Precision precision = Precision::kFp32;
  Profile* profile = nullptr;
  // Backward: whether the gradients of routed experts are added to, or written over.
  bool onto_expert_gradients = true;
};

// Collective over ep. x E [T, D]; adds to y [T, D].
template <typename E>
void moe_forward(const MoeContext& context, const LayerWeights& weights, const at::Tensor& x,
                 const at::Tensor& span_ends, std::vector<int64_t> pool_sizes,
                 const ExpertSubset& subset, const at::Tensor& y, MoeActivations* kept,
                 FeedForwardBuffers* buffers);

// Collective over ep. From dy E [T, D]: overwrites dx [T, D], which is not dy, and adds to the
// gradients, but see onto_expert_gradients. `balance` [E] and `z` as for route_backward.
template <typename E>
void moe_backward(const MoeContext& context, const LayerWeights& weights,
                  const LayerWeights& gradients, const at::Tensor& x, const at::Tensor& dy,
                  const std::vector<float>& balance, float z, const at::Tensor& dx,
                  MoeActivations* kept, FeedForwardBuffers* buffers);

// The part that every token goes through: shared experts, or a dense layer's feed-forward. x and dy
// E [T, D], y and dx [T, D].
template <typename E>
void always_forward(const std::vector<FeedForwardView>& weights, const at::Tensor& x,
                    const at::Tensor& y, std::vector<at::Tensor>* hidden,
                    FeedForwardBuffers* buffers);
template <typename E>
void always_backward(const std::vector<FeedForwardView>& weights,
                     const std::vector<FeedForwardView>& gradients, const at::Tensor& x,
                     const at::Tensor& dy, const at::Tensor& dx, std::vector<at::Tensor>* hidden,
                     FeedForwardBuffers* buffers);

}  // namespace emo
