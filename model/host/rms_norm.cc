#include "model/host/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "model/host/bf16.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kBlock = 128;  // rows whose weight gradients are summed together

template <typename Stored>
EMO_SIMD void normalise_rows(int64_t begin, int64_t end, int64_t D, const float* x, const float* w,
                             float epsilon, Stored* y, float* reciprocal) {
  for (int64_t t = begin; t < end; ++t) {
    const float* row = x + t * D;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t d = 0; d < D; ++d) squares += row[d] * row[d];
    const float r = 1.0f / std::sqrt(squares / static_cast<float>(D) + epsilon);
    reciprocal[t] = r;
    for (int64_t d = 0; d < D; ++d) y[t * D + d] = narrow<Stored>(row[d] * r * w[d]);
  }
}

EMO_SIMD void backward_rows(int64_t begin, int64_t end, int64_t D, const float* x, const float* w,
                            const float* reciprocal, const float* dy, float* dx, float* dw) {
  std::fill_n(dw, D, 0.0f);
  for (int64_t t = begin; t < end; ++t) {
    const float* row = x + t * D;
    const float* grad = dy + t * D;
    const float r = reciprocal[t];
    float product = 0;
#pragma omp simd reduction(+ : product)
    for (int64_t d = 0; d < D; ++d) product += grad[d] * w[d] * row[d];
    const float scale = product * r * r * r / static_cast<float>(D);
    for (int64_t d = 0; d < D; ++d) {
      dx[t * D + d] += grad[d] * w[d] * r - row[d] * scale;
      dw[d] += grad[d] * row[d] * r;
    }
  }
}

}  // namespace

template <typename Stored>
void rms_norm(int64_t T, int64_t D, const float* x, const float* w, float epsilon, Stored* y,
              float* reciprocal) {
  parallel_for(T, kBlock, [&](int64_t begin, int64_t end) {
    vectorised<normalise_rows<Stored>>(begin, end, D, x, w, epsilon, y, reciprocal);
  });
}
template void rms_norm(int64_t, int64_t, const float*, const float*, float, float*, float*);
template void rms_norm(int64_t, int64_t, const float*, const float*, float, Bf16*, float*);

void rms_norm_backward(int64_t T, int64_t D, const float* x, const float* w,
                       const float* reciprocal, const float* dy, float* dx, float* dw,
                       std::vector<float>* partial) {
  const int64_t blocks = (T + kBlock - 1) / kBlock;
  partial->resize(blocks * D);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      vectorised<backward_rows>(b * kBlock, std::min(T, (b + 1) * kBlock), D, x, w, reciprocal, dy,
                                dx, partial->data() + b * D);
    }
  });
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t d = 0; d < D; ++d) dw[d] += (*partial)[b * D + d];
  }
}

}  // namespace emo
