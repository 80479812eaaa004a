#include "model/host/rope.h"

#include <c10/util/Exception.h>

#include "model/host/bf16.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// The heads of one token.
template <typename Stored>
EMO_SIMD void rotate_heads(int64_t heads, int64_t half, const float* cosines, const float* sines,
                           float direction, Stored* x) {
  for (int64_t head = 0; head < heads; ++head, x += 2 * half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const float a = widen(x[i]);
      const float b = widen(x[i + half]);
      const float sine = direction * sines[i];
      x[i] = narrow<Stored>(a * cosines[i] - b * sine);
      x[i + half] = narrow<Stored>(b * cosines[i] + a * sine);
    }
  }
}

}  // namespace

template <typename Stored>
void rotate(const RopeTable& table, Rotation rotation, int64_t T, const int32_t* positions,
            int64_t heads, int64_t head_dim, int64_t stride, Stored* x) {
  for (int64_t t = 0; t < T; ++t) {
    TORCH_CHECK(positions[t] >= 0 && positions[t] < table.positions(), "position ", positions[t],
                " in a table of ", table.positions());
  }
  const float direction = rotation == Rotation::kForward ? 1.0f : -1.0f;
  const int64_t half = head_dim / 2;
  const auto* cosines = table.cosines.const_data_ptr<float>();
  const auto* sines = table.sines.const_data_ptr<float>();
  parallel_for(T, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      vectorised<rotate_heads<Stored>>(heads, half, cosines + positions[t] * half,
                                       sines + positions[t] * half, direction, x + t * stride);
    }
  });
}
template void rotate(const RopeTable&, Rotation, int64_t, const int32_t*, int64_t, int64_t, int64_t,
                     float*);
template void rotate(const RopeTable&, Rotation, int64_t, const int32_t*, int64_t, int64_t, int64_t,
                     Bf16*);

}  // namespace emo
