// The router: from logits to experts, with one pool of experts for each document.
//
// For each token t and routed expert e with logit z_te, document d and its pool P_d (emo-facts 1.2,
// design.md "Routing contract"):
// - q_de = sum over t in d of softmax_e(z_t), unmasked
// - P_d = the pool_sizes[d] experts of largest q_d
// - s_t = softmax over P_d of z_t (mask before the softmax), or
//   softmax over all of z_t, zero outside P_d (mask after the softmax)
// - the K largest s_te are the token's experts, s_te their weights, not renormalised.
// Ties keep the lower index. Pools are not differentiated. There is no other router: the standard
// MoE is this one with pools of E.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace emo {

// What is kept when an evaluation cuts experts away.
struct ExpertSubset {
  std::vector<uint8_t> kept;  // [E] 1: kept; empty: all
  // false: as if the others had never been, the softmax runs over the kept ones (the reference's
  // way); true: weights are those of the full model.
  bool full_weights = false;
  // [N, E] pools of the batch's documents that were chosen before, in decoding from the prompt; a
  // document whose row is zero gets its pool as ever. Empty: all do.
  std::vector<uint8_t> pools;
};

struct RouterInput {
  at::Tensor logits;                // f32 [T, E]
  at::Tensor span_ends;             // i32 [N + 1] routing spans, the first 0, the last T
  PoolPolicy pool;                  // of this pass, whatever the contract's is
  std::vector<int64_t> pool_sizes;  // [N]; E or more masks nothing; an upper bound for top-p pools
  int64_t top_k = 0;                // K
  ExpertSubset subset;
  at::Tensor labels = {};  // i32 [T]: the losses are of tokens with a label >= 0; undefined: of all
};

// What the step needs of one layer's routing, and what its backward pass does.
struct Routing {
  at::Tensor experts;          // i32 [T, K], best first; -1 where a subset has fewer than K
  at::Tensor weights;          // f32 [T, K]
  std::vector<uint8_t> pools;  // [N, E] 1: in the document's pool
  // Over the tokens that the losses are of:
  std::vector<int64_t> counts;    // [E] tokens that chose e
  std::vector<double> score_sum;  // [E] sum of the scores that the balance loss sees
  double z_squares = 0;           // sum of logsumexp^2, of the logits that z_sees says
  // Over all tokens and documents:
  double token_entropy = 0;     // sum over tokens of the entropy of the masked softmax, nats
  double document_entropy = 0;  // sum over documents of the mean unmasked entropy of their tokens
  double pool_size = 0;         // sum over documents
  int64_t documents = 0;        // N where pools are chosen, else 0
  std::vector<float> masked_logsumexp;  // [T] over the pool
  std::vector<float> full_logsumexp;    // [T] over all, where the contract needs it
};

// Runs on all threads; the result does not depend on their number.
void route(const RouterInput& input, const RoutingContract& contract, Routing* routing);

// The gradients that reach the router: `d_weights` f32 [T, K] from the experts' results;
// `balance` [E], the derivative of the balance loss by each score; `z`, the factor of
// logsumexp^2 in the z loss. Writes d_logits f32 [T, E].
void route_backward(const RouterInput& input, const RoutingContract& contract,
                    const Routing& routing, const at::Tensor& d_weights,
                    const std::vector<float>& balance, float z, const at::Tensor& d_logits);

}  // namespace emo
