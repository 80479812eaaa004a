#include "model/host/rope.h"

#include <c10/util/Exception.h>

#include <cmath>

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

RopeTable::RopeTable(int64_t positions, int64_t head_dim, double theta)
    : positions_(positions),
      half_(head_dim / 2),
      cosines_(positions * half_),
      sines_(positions * half_) {
  for (int64_t i = 0; i < half_; ++i) {
    const auto frequency = static_cast<float>(
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
    for (int64_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      cosines_[position * half_ + i] = std::cos(angle);
      sines_[position * half_ + i] = std::sin(angle);
    }
  }
}

template <typename Stored>
void rotate(const RopeTable& table, Rotation rotation, int64_t T, const int32_t* positions,
            int64_t heads, int64_t head_dim, int64_t stride, Stored* x) {
  for (int64_t t = 0; t < T; ++t) {
    TORCH_CHECK(positions[t] >= 0 && positions[t] < table.positions(), "position ", positions[t],
                " in a table of ", table.positions());
  }
  const float direction = rotation == Rotation::kForward ? 1.0f : -1.0f;
  parallel_for(T, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      vectorised<rotate_heads<Stored>>(heads, head_dim / 2, table.cosines(positions[t]),
                                       table.sines(positions[t]), direction, x + t * stride);
    }
  });
}
template void rotate(const RopeTable&, Rotation, int64_t, const int32_t*, int64_t, int64_t, int64_t,
                     float*);
template void rotate(const RopeTable&, Rotation, int64_t, const int32_t*, int64_t, int64_t, int64_t,
                     Bf16*);

}  // namespace emo
