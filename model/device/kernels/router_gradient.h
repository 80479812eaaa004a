// The gradient of the router's logits (route_backward of model/router.h).
#pragma once

#include <ATen/core/Tensor.h>

#include "model/spans.h"

namespace emo::device {

// One softmax of each token, over its pool (`pools` undefined: over all), and what the losses say
// about it; an undefined tensor or a 0 where they say nothing.
struct SoftmaxLosses {
  at::Tensor pools;         // u8 [N, E]
  at::Tensor logsumexp;     // f32 [T]
  at::Tensor balance;       // f32 [E] gradient of the scores of each token in the losses, or [N, E]
                            // by document
  at::Tensor balance_pool;  // u8 [N, E] where `balance` counts only inside a pool
  float z = 0;              // factor of logsumexp^2
  at::Tensor labels;        // i32 [T] those with a label >= 0 are in the losses; undefined: all
  at::Tensor experts;       // i32 [T, K] ...
  at::Tensor d_weights;     // f32 [T, K] ... gradient of the chosen experts' scores
};

// Adds to d_logits f32 [T, E].
void add_softmax_gradient(const at::Tensor& logits, const Spans& spans, const SoftmaxLosses& losses,
                          const at::Tensor& d_logits);

}  // namespace emo::device
