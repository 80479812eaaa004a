// The router: from logits to experts, with one pool of experts for each document.
//
// For each token t and routed expert e with logit z_te, document d and its pool P_d (emo-facts 1.2,
// design.md "Routing contract"):
// - q_de = sum over t in d of softmax_e(z_t), unmasked
// - P_d = the pool_sizes[d] experts of largest q_d
// - s_t = softmax over P_d of z_t (mask before the softmax), or
//   softmax over all of z_t, zero outside P_d (mask after the softmax)
// - the K largest s_te, or s_te + b_e with a selection bias, of P_d are the token's experts, s_te
//   their weights, not renormalised.
// Ties keep the lower index. Pools are not differentiated. There is no other router: the standard
// MoE is this one with pools of E.
//
// What a router is given and what it decides, the same for every back end. How it is computed is
// apart: on the host one pass over each token while it is in a register (model/host/router.h), on a
// device a kernel for each quantity (model/device/router.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/spans.h"

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
  at::Tensor logits;      // f32 [T, E]
  Spans spans;            // routing
  at::Tensor pool_sizes;  // i32 [N]; E or more masks nothing; an upper bound for top-p pools
  PoolPolicy pool;        // of this pass, whatever the contract's is
  int64_t top_k = 0;      // K
  ExpertSubset subset;
  at::Tensor labels = {};  // i32 [T]: the losses are of tokens with a label >= 0; undefined: of all
  at::Tensor bias = {};    // f32 [E]: experts are chosen by s_te + b_e; undefined: by s_te
};

// What the step needs of one layer's routing, and what its backward pass does.
struct Routing {
  at::Tensor experts;  // i32 [T, K], best first; -1 where a subset has fewer than K
  at::Tensor weights;  // f32 [T, K]
  at::Tensor pools;    // u8 [N, E] 1: in the document's pool
  // Over the tokens that the losses are of:
  at::Tensor counts;     // i64 [E] tokens that chose e
  at::Tensor score_sum;  // f64 [E] sum of the scores that the balance loss sees
  // The same two of each document, where the balance loss is of documents; else undefined:
  at::Tensor document_counts;     // i32 [N, E]
  at::Tensor document_score_sum;  // f64 [N, E]
  // Of all tokens and documents:
  at::Tensor token_entropy;     // f32 [T] of the masked softmax, nats
  at::Tensor document_entropy;  // f64 [N] mean unmasked entropy of its tokens; undefined without
                                // pools
  at::Tensor pool_sizes;        // i32 [N]; undefined without pools
  at::Tensor masked_logsumexp;  // f32 [T] over the pool
  at::Tensor full_logsumexp;    // f32 [T] over all; undefined where the contract does not need it
  const at::Tensor& z_logsumexp(const RoutingContract& contract) const {
    return contract.z_sees == ScoresSeen::kFull ? full_logsumexp : masked_logsumexp;
  }
};

}  // namespace emo
