#include "model/host/feed_forward.h"

#include "model/host/linear.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kGrain = 64;  // rows

// act = w * SiLU(gate) * up, for rows of hidden = (gate, up).
template <typename Stored>
EMO_SIMD void activate_rows(int64_t begin, int64_t end, int64_t F, const Stored* hidden,
                            const float* row_weights, Stored* act) {
  for (int64_t i = begin; i < end; ++i) {
    const Stored* gate = hidden + i * 2 * F;
    const Stored* up = gate + F;
    const float w = row_weights != nullptr ? row_weights[i] : 1.0f;
    for (int64_t f = 0; f < F; ++f) {
      const float g = widen(gate[f]);
      act[i * F + f] = narrow<Stored>(w * (g / (1.0f + fast_exp(-g))) * widen(up[f]));
    }
  }
}

// hidden becomes its gradient, act becomes w * SiLU(gate) * up again, and the weight's gradient is
// the inner product of d_act with the unweighted activation.
template <typename Stored>
EMO_SIMD void activate_backward_rows(int64_t begin, int64_t end, int64_t F, Stored* hidden,
                                     const float* row_weights, const Stored* d_act, Stored* act,
                                     float* d_row_weights) {
  for (int64_t i = begin; i < end; ++i) {
    Stored* gate = hidden + i * 2 * F;
    Stored* up = gate + F;
    const Stored* d_of_act = d_act + i * F;
    Stored* a = act + i * F;
    const float w = row_weights != nullptr ? row_weights[i] : 1.0f;
    float product = 0;
#pragma omp simd reduction(+ : product)
    for (int64_t f = 0; f < F; ++f) {
      const float g = widen(gate[f]);
      const float u = widen(up[f]);
      const float da = widen(d_of_act[f]);
      const float sigmoid = 1.0f / (1.0f + fast_exp(-g));
      const float silu = g * sigmoid;
      product += da * silu * u;
      a[f] = narrow<Stored>(w * silu * u);
      gate[f] = narrow<Stored>(w * da * u * (sigmoid + silu * (1.0f - sigmoid)));
      up[f] = narrow<Stored>(w * da * silu);
    }
    if (d_row_weights != nullptr) d_row_weights[i] = product;
  }
}

}  // namespace

template <typename Stored>
void feed_forward_hidden(const FeedForwardView& weights, int64_t n, const Stored* x,
                         Stored* hidden) {
  linear(n, 2 * weights.F, weights.D, {x, weights.D}, {weights.gate_up, weights.D}, 0,
         {hidden, 2 * weights.F});
}

template <typename Stored, typename Y>
void feed_forward(const FeedForwardView& weights, const FeedForwardRows<Stored>& rows,
                  const FeedForwardMemory<Stored>& memory, float beta, Y* y) {
  const int64_t D = weights.D;
  const int64_t F = weights.F;
  feed_forward_hidden(weights, rows.n, rows.x, memory.hidden);
  parallel_for(rows.n, kGrain, [&](int64_t begin, int64_t end) {
    vectorised<activate_rows<Stored>>(begin, end, F, memory.hidden, rows.weights, memory.act);
  });
  linear(rows.n, D, F, {memory.act, F}, {weights.down, F}, beta, {y, D});
}

template <typename Stored, typename Y>
void feed_forward_backward(const FeedForwardView& weights, const FeedForwardRows<Stored>& rows,
                           const Stored* dy, const FeedForwardMemory<Stored>& memory, float onto,
                           const FeedForwardView& gradients, float beta, Y* dx,
                           float* d_row_weights) {
  const int64_t n = rows.n;
  const int64_t D = weights.D;
  const int64_t F = weights.F;
  const auto [hidden, act, d_act] = memory;
  linear_input_gradient(n, D, F, {dy, D}, {weights.down, F}, 0, {d_act, F});
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    vectorised<activate_backward_rows<Stored>>(begin, end, F, memory.hidden, rows.weights,
                                               memory.d_act, memory.act, d_row_weights);
  });
  linear_weight_gradient(n, D, F, {dy, D}, {act, F}, onto, {gradients.down, F});
  linear_weight_gradient(n, 2 * F, D, {hidden, 2 * F}, {rows.x, D}, onto, {gradients.gate_up, D});
  linear_input_gradient(n, 2 * F, D, {hidden, 2 * F}, {weights.gate_up, D}, beta, {dx, D});
}

template void feed_forward_hidden(const FeedForwardView&, int64_t, const float*, float*);
template void feed_forward_hidden(const FeedForwardView&, int64_t, const Bf16*, Bf16*);
template void feed_forward(const FeedForwardView&, const FeedForwardRows<float>&,
                           const FeedForwardMemory<float>&, float, float*);
template void feed_forward_backward(const FeedForwardView&, const FeedForwardRows<float>&,
                                    const float*, const FeedForwardMemory<float>&, float,
                                    const FeedForwardView&, float, float*, float*);
template void feed_forward(const FeedForwardView&, const FeedForwardRows<Bf16>&,
                           const FeedForwardMemory<Bf16>&, float, float*);
template void feed_forward_backward(const FeedForwardView&, const FeedForwardRows<Bf16>&,
                                    const Bf16*, const FeedForwardMemory<Bf16>&, float,
                                    const FeedForwardView&, float, float*, float*);
template void feed_forward(const FeedForwardView&, const FeedForwardRows<Bf16>&,
                           const FeedForwardMemory<Bf16>&, float, Bf16*);
template void feed_forward_backward(const FeedForwardView&, const FeedForwardRows<Bf16>&,
                                    const Bf16*, const FeedForwardMemory<Bf16>&, float,
                                    const FeedForwardView&, float, Bf16*, float*);

}  // namespace emo
