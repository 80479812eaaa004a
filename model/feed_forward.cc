#include "model/feed_forward.h"

#include "model/linear.h"
#include "model/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kGrain = 64;  // rows

// act = w * SiLU(gate) * up, for rows of hidden = (gate, up).
EMO_SIMD void activate_rows(int64_t begin, int64_t end, int64_t F, const float* hidden,
                            const float* row_weights, float* act) {
  for (int64_t i = begin; i < end; ++i) {
    const float* gate = hidden + i * 2 * F;
    const float* up = gate + F;
    const float w = row_weights != nullptr ? row_weights[i] : 1.0f;
    for (int64_t f = 0; f < F; ++f) {
      act[i * F + f] = w * (gate[f] / (1.0f + fast_exp(-gate[f]))) * up[f];
    }
  }
}

// hidden becomes its gradient, act becomes w * SiLU(gate) * up again, and the weight's gradient is
// the inner product of d_act with the unweighted activation.
EMO_SIMD void activate_backward_rows(int64_t begin, int64_t end, int64_t F, float* hidden,
                                     const float* row_weights, const float* d_act, float* act,
                                     float* d_row_weights) {
  for (int64_t i = begin; i < end; ++i) {
    float* gate = hidden + i * 2 * F;
    float* up = gate + F;
    const float* da = d_act + i * F;
    float* a = act + i * F;
    const float w = row_weights != nullptr ? row_weights[i] : 1.0f;
    float product = 0;
#pragma omp simd reduction(+ : product)
    for (int64_t f = 0; f < F; ++f) {
      const float g = gate[f];
      const float u = up[f];
      const float sigmoid = 1.0f / (1.0f + fast_exp(-g));
      const float silu = g * sigmoid;
      product += da[f] * silu * u;
      a[f] = w * silu * u;
      gate[f] = w * da[f] * u * (sigmoid + silu * (1.0f - sigmoid));
      up[f] = w * da[f] * silu;
    }
    if (d_row_weights != nullptr) d_row_weights[i] = product;
  }
}

}  // namespace

void feed_forward_hidden(const FeedForwardView& weights, int64_t n, const float* x, float* hidden) {
  linear(n, 2 * weights.F, weights.D, {x, weights.D}, {weights.gate_up, weights.D}, 0,
         {hidden, 2 * weights.F});
}

void feed_forward(const FeedForwardView& weights, int64_t n, const float* x,
                  const float* row_weights, float* hidden, float* act, float beta, float* y) {
  const int64_t D = weights.D;
  const int64_t F = weights.F;
  feed_forward_hidden(weights, n, x, hidden);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    activate_rows(begin, end, F, hidden, row_weights, act);
  });
  linear(n, D, F, {act, F}, {weights.down, F}, beta, {y, D});
}

void feed_forward_backward(const FeedForwardView& weights, const FeedForwardView& gradients,
                           int64_t n, const float* x, const float* row_weights, float* hidden,
                           const float* dy, float* act, float* d_act, float beta, float* dx,
                           float* d_row_weights) {
  const int64_t D = weights.D;
  const int64_t F = weights.F;
  linear_input_gradient(n, D, F, {dy, D}, {weights.down, F}, 0, {d_act, F});
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    activate_backward_rows(begin, end, F, hidden, row_weights, d_act, act, d_row_weights);
  });
  linear_weight_gradient(n, D, F, {dy, D}, {act, F}, 1, {gradients.down, F});
  linear_weight_gradient(n, 2 * F, D, {hidden, 2 * F}, {x, D}, 1, {gradients.gate_up, D});
  linear_input_gradient(n, 2 * F, D, {hidden, 2 * F}, {weights.gate_up, D}, beta, {dx, D});
}

}  // namespace emo
