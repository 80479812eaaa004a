#include "model/host/qk_norm.h"

#include <algorithm>
#include <cmath>

#include "model/host/bf16.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kBlock = 128;  // rows whose weight gradients are summed together

template <typename Stored>
EMO_SIMD void normalise_row(int64_t D, const float* w, float epsilon, Stored* row, Stored* raw,
                            float* reciprocal) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t d = 0; d < D; ++d) {
    const float x = widen(row[d]);
    squares += x * x;
  }
  const float r = 1.0f / std::sqrt(squares / static_cast<float>(D) + epsilon);
  *reciprocal = r;
  for (int64_t d = 0; d < D; ++d) {
    raw[d] = row[d];
    row[d] = narrow<Stored>(widen(row[d]) * r * w[d]);
  }
}

// With x the raw row and r its reciprocal: dx = g w r - x r^3 sum(g w x) / D, dw += g x r.
template <typename Stored>
EMO_SIMD void backward_row(int64_t D, const float* w, const Stored* raw, float r, Stored* row,
                           float* dw) {
  float product = 0;
#pragma omp simd reduction(+ : product)
  for (int64_t d = 0; d < D; ++d) product += widen(row[d]) * w[d] * widen(raw[d]);
  const float scale = product * r * r * r / static_cast<float>(D);
  for (int64_t d = 0; d < D; ++d) {
    const float gradient = widen(row[d]);
    const float x = widen(raw[d]);
    dw[d] += gradient * x * r;
    row[d] = narrow<Stored>(gradient * w[d] * r - x * scale);
  }
}

}  // namespace

template <typename Stored>
void qk_norm(int64_t T, int64_t D, const QkNormWeights& weights, float epsilon, Stored* qkv,
             Stored* raw, float* reciprocal) {
  parallel_for(T, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      vectorised<normalise_row<Stored>>(D, weights.q, epsilon, qkv + 3 * t * D, raw + 2 * t * D,
                                        reciprocal + 2 * t);
      vectorised<normalise_row<Stored>>(D, weights.k, epsilon, qkv + (3 * t + 1) * D,
                                        raw + (2 * t + 1) * D, reciprocal + 2 * t + 1);
    }
  });
}
template void qk_norm(int64_t, int64_t, const QkNormWeights&, float, float*, float*, float*);
template void qk_norm(int64_t, int64_t, const QkNormWeights&, float, Bf16*, Bf16*, float*);

template <typename Stored>
void qk_norm_backward(int64_t T, int64_t D, const QkNormWeights& weights, const Stored* raw,
                      const float* reciprocal, Stored* d_qkv, const QkNormWeights& gradients,
                      std::vector<float>* partial) {
  const int64_t blocks = (T + kBlock - 1) / kBlock;
  partial->assign(blocks * 2 * D, 0.0f);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* dw = partial->data() + b * 2 * D;
      for (int64_t t = b * kBlock; t < std::min(T, (b + 1) * kBlock); ++t) {
        vectorised<backward_row<Stored>>(D, weights.q, raw + 2 * t * D, reciprocal[2 * t],
                                         d_qkv + 3 * t * D, dw);
        vectorised<backward_row<Stored>>(D, weights.k, raw + (2 * t + 1) * D, reciprocal[2 * t + 1],
                                         d_qkv + (3 * t + 1) * D, dw + D);
      }
    }
  });
  for (int64_t b = 0; b < blocks; ++b) {
    const float* dw = partial->data() + b * 2 * D;
    for (int64_t d = 0; d < D; ++d) gradients.q[d] += dw[d];
    for (int64_t d = 0; d < D; ++d) gradients.k[d] += dw[D + d];
  }
}
template void qk_norm_backward(int64_t, int64_t, const QkNormWeights&, const float*, const float*,
                               float*, const QkNormWeights&, std::vector<float>*);
template void qk_norm_backward(int64_t, int64_t, const QkNormWeights&, const Bf16*, const float*,
                               Bf16*, const QkNormWeights&, std::vector<float>*);

}  // namespace emo
