// The router of model/router.h on a device: the same contract, nothing waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/config.h"
#include "model/device/kernels/spans.h"
#include "model/router.h"

namespace emo::device {

struct RouterInput {
  at::Tensor logits;      // f32 [T, E]
  Spans spans;            // routing
  at::Tensor pool_sizes;  // i32 [N] as drawn; top-p pools: an upper bound, not changed
  PoolPolicy pool;        // of this pass, whatever the contract's is
  int64_t top_k = 0;      // K
  ExpertSubset subset;
  at::Tensor labels = {};  // i32 [T]: the losses are of tokens with a label >= 0; undefined: of all
};

// Field by field what model/router.h says of Routing.
struct Routing {
  at::Tensor experts;           // i32 [T, K]
  at::Tensor weights;           // f32 [T, K]
  at::Tensor pools;             // u8 [N, E]
  at::Tensor counts;            // i64 [E]
  at::Tensor score_sum;         // f64 [E]
  at::Tensor token_entropy;     // f32 [T] of the softmax over the pool
  at::Tensor document_entropy;  // f64 [N]; undefined without pools
  at::Tensor pool_sizes;        // i32 [N]; undefined without pools
  at::Tensor masked_logsumexp;  // f32 [T]
  at::Tensor full_logsumexp;    // f32 [T]; undefined where the contract does not need it
  const at::Tensor& z_logsumexp(const RoutingContract& contract) const {
    return contract.z_sees == ScoresSeen::kFull ? full_logsumexp : masked_logsumexp;
  }
};

Routing route(const RouterInput& input, const RoutingContract& contract);

// REQUIRES: no subset. d_logits f32 [T, E] from d_weights f32 [T, K], balance f32 [E] and z, as for
// emo::route_backward.
at::Tensor route_backward(const RouterInput& input, const RoutingContract& contract,
                          const Routing& routing, const at::Tensor& d_weights,
                          const at::Tensor& balance, float z);

}  // namespace emo::device
