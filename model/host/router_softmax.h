// One token's softmax over some of the experts: the document scores' and the router's alike.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "model/host/simd.h"

namespace emo {

// p [E] = softmax of z [E] over the experts whose `mask` [E] is 1; the others get 0. Answers
// logsumexp and sets the entropy (nats). At least one expert is in the mask. Inline, so that it is
// vectorised with its caller.
EMO_SIMD float softmax(int64_t E, const float* z, const float* mask, float* p, float* entropy) {
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  float largest = kMinusInfinity;
#pragma omp simd reduction(max : largest)
  for (int64_t e = 0; e < E; ++e) largest = larger(largest, mask[e] > 0 ? z[e] : kMinusInfinity);
  float total = 0;
  float weighted = 0;
#pragma omp simd reduction(+ : total, weighted)
  for (int64_t e = 0; e < E; ++e) {
    p[e] = fast_exp(z[e] - largest) * mask[e];
    total += p[e];
    weighted += p[e] * (z[e] - largest);
  }
  const float inverse = 1.0f / total;
  for (int64_t e = 0; e < E; ++e) p[e] *= inverse;
  const float log_total = std::log(total);
  *entropy = log_total - weighted * inverse;
  return largest + log_total;
}

}  // namespace emo
