// RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467): y = x / sqrt(mean(x^2) + epsilon) * w.
#pragma once

#include <cstdint>
#include <vector>

namespace emo {

// x [T, D] -> y [T, D], and reciprocal [T], 1 / sqrt(...) of each row, for the backward pass.
// Stored: float or Bf16.
template <typename Stored>
void rms_norm(int64_t T, int64_t D, const float* x, const float* w, float epsilon, Stored* y,
              float* reciprocal);

// Adds to dx [T, D] and dw [D] what dy [T, D] says. `partial` is scratch.
void rms_norm_backward(int64_t T, int64_t D, const float* x, const float* w,
                       const float* reciprocal, const float* dy, float* dx, float* dw,
                       std::vector<float>* partial);

}  // namespace emo
