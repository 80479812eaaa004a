// SwiGLU feed-forward (Shazeer 2020, arXiv 2002.05202): y = (SiLU(x G^T) * (x U^T)) D^T. One
// function for routed experts, shared experts and dense layers.
#pragma once

#include <cstdint>

namespace emo {

// The weights as they lie in memory: gate and up one above the other, so that one product does
// both.
struct FeedForwardView {
  float* gate_up = nullptr;  // [2 F, D]
  float* down = nullptr;     // [D, F]
  int64_t D = 0;
  int64_t F = 0;
};

// E is what is stored, float or Bf16. y and dx are of E too, with beta 0 where that is Bf16, or
// fp32.

// y [n, D] = beta * y + w * f(x) for x [n, D]; `row_weights` w [n], or null for 1. Keeps hidden
// [n, 2 F], what the backward pass needs. `act` [n, F] is scratch.
template <typename E, typename Y>
void feed_forward(const FeedForwardView& weights, int64_t n, const E* x, const float* row_weights,
                  E* hidden, E* act, float beta, Y* y);

// `hidden` alone, the same bits.
template <typename E>
void feed_forward_hidden(const FeedForwardView& weights, int64_t n, const E* x, E* hidden);

// From dy [n, D]: dx [n, D] = beta * dx + ..., d_row_weights [n] (null where row_weights is), and
// gradients = onto * gradients + ..., onto 0 or 1. Overwrites `hidden` with its gradient. `act` and
// `d_act` [n, F] are scratch.
template <typename E, typename Y>
void feed_forward_backward(const FeedForwardView& weights, const FeedForwardView& gradients,
                           float onto, int64_t n, const E* x, const float* row_weights, E* hidden,
                           const E* dy, E* act, E* d_act, float beta, Y* dx, float* d_row_weights);

}  // namespace emo
