#include "model/host/adamw.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kBlock = 1 << 14;  // floats of one partial sum

EMO_SIMD double squares_of_block(int64_t count, const float* x) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

EMO_SIMD void update(int64_t count, const AdamWFactors& f, float gradient_scale,
                     const float* gradient, float* parameter, float* m, float* v) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * gradient_scale;
    m[i] = f.beta1 * m[i] + (1 - f.beta1) * g;
    v[i] = f.beta2 * v[i] + (1 - f.beta2) * g * g;
    const float denominator = std::sqrt(v[i]) * f.root_correction + f.epsilon;
    parameter[i] = parameter[i] * f.keep - f.step_size * m[i] / denominator;
  }
}

}  // namespace

double sum_of_squares(int64_t count, const float* x) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      partial[b] =
          vectorised<squares_of_block>(std::min(kBlock, count - b * kBlock), x + b * kBlock);
    }
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}

void adamw(const AdamWFactors& factors, float scale, int64_t count, const float* gradient,
           float* parameter, float* m, float* v) {
  parallel_for(count, kBlock, [&](int64_t begin, int64_t end) {
    vectorised<update>(end - begin, factors, scale, gradient + begin, parameter + begin, m + begin,
                       v + begin);
  });
}

}  // namespace emo
