// Discrete choices of the router: each document's pool, each token's experts. Ties keep the lower
// index.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/config.h"
#include "model/spans.h"

namespace emo::device {

// From q f64 [N, E] and sizes i32 [N] (for top-p pools an upper bound that is overwritten): pools
// u8 [N, E], 1 for the experts of the document's pool (model/host/document_pools.h). `ranked` i32
// [N, E] is scratch.
void choose_pools(const at::Tensor& q, const PoolPolicy& policy, const at::Tensor& sizes,
                  const at::Tensor& ranked, const at::Tensor& pools);

// The K experts of each token with the largest exp(logit - logsumexp), plus bias f32 [E] where that
// is defined, in its pool, best first: experts i32 [T, K] (-1 where the pool has fewer) and as
// weights f32 [T, K] (0 there) their exp(logit - logsumexp).
void choose_experts(const at::Tensor& logits, const at::Tensor& logsumexp, const Spans& spans,
                    const at::Tensor& pools, const at::Tensor& bias, const at::Tensor& experts,
                    const at::Tensor& weights);

}  // namespace emo::device
