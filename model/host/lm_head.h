// The language-model head with its loss: logits, cross-entropy and their gradients in chunks of
// rows, so that [T, V] is never in memory.
#pragma once

#include <cstdint>

#include "model/host/scratch.h"

namespace emo {

struct LmHeadWeights {
  float* w = nullptr;  // [V, D]
  int64_t V = 0;
  int64_t D = 0;
};

struct LmLoss {
  double cross_entropy = 0;  // sum over labelled tokens, nats
  double z_squares = 0;      // sum of logsumexp^2 over labelled tokens
  int64_t labels = 0;
};

// x [T, D] (normalised); labels [T], -100: none. Optional outputs, null to skip: logits [T, V];
// token_loss [T], the cross-entropy of each token, 0 without a label.
LmLoss lm_loss(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
               float* logits, float* token_loss, Scratch* scratch);

// The loss and, in the same pass, the gradients of
//   scale * sum_t (cross-entropy_t + z_weight * logsumexp_t^2):
// overwrites dx [T, D], adds to d_head. Stored: float or Bf16; logits are fp32 in both.
template <typename Stored>
LmLoss lm_loss_and_gradients(const LmHeadWeights& head, const LmHeadWeights& d_head, int64_t T,
                             const Stored* x, const int32_t* labels, float scale, float z_weight,
                             float* dx, Scratch* scratch);

}  // namespace emo
