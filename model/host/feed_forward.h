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

// Stored is float or Bf16. y and dx are of Stored too, with beta 0 where that is
// Bf16, or fp32.

// What a feed-forward is applied to.
template <typename Stored>
struct FeedForwardRows {
  int64_t n = 0;
  const Stored* x = nullptr;       // [n, D]
  const float* weights = nullptr;  // w [n] that results are multiplied by, or null for 1
};

// Its memory.
template <typename Stored>
struct FeedForwardMemory {
  Stored* hidden = nullptr;  // [n, 2 F] what the backward pass needs of the forward pass
  Stored* act = nullptr;     // [n, F] scratch
  Stored* d_act = nullptr;   // [n, F] scratch of the backward pass
};

// y [n, D] = beta * y + w * f(x). Keeps memory.hidden.
template <typename Stored, typename Y>
void feed_forward(const FeedForwardView& weights, const FeedForwardRows<Stored>& rows,
                  const FeedForwardMemory<Stored>& memory, float beta, Y* y);

// `hidden` alone, the same bits.
template <typename Stored>
void feed_forward_hidden(const FeedForwardView& weights, int64_t n, const Stored* x,
                         Stored* hidden);

// From dy [n, D]: gradients = onto * gradients + ..., onto 0 or 1, dx [n, D] = beta * dx + ..., and
// d_row_weights [n] (null where rows.weights is). Overwrites memory.hidden with its gradient.
// REQUIRES: memory.hidden as feed_forward() left it.
template <typename Stored, typename Y>
void feed_forward_backward(const FeedForwardView& weights, const FeedForwardRows<Stored>& rows,
                           const Stored* dy, const FeedForwardMemory<Stored>& memory, float onto,
                           const FeedForwardView& gradients, float beta, Y* dx,
                           float* d_row_weights);

}  // namespace emo
