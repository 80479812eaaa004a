// A row-major matrix inside a larger one: row i starts at data + i * stride. Owns nothing.
#pragma once

#include <cstdint>

#include "model/host/bf16.h"

namespace emo {

template <typename Stored>
struct BasicMatrixView {
  Stored* data;
  int64_t stride;
};
template <typename Stored>
struct BasicConstMatrixView {
  BasicConstMatrixView(const Stored* d, int64_t s) : data(d), stride(s) {}
  BasicConstMatrixView(BasicMatrixView<Stored> m)  // NOLINT: a view of a view
      : data(m.data), stride(m.stride) {}
  const Stored* data;
  int64_t stride;
};

// A stride for memory of our own, at least `columns`: rows a power of two apart would share few
// sets of a cache. A multiple of 16 numbers, so that aligned memory has aligned rows.
constexpr int64_t padded_stride(int64_t columns) { return (columns + 15) / 16 * 16 + 16; }

using MatrixView = BasicMatrixView<float>;
using ConstMatrixView = BasicConstMatrixView<float>;
using Bf16MatrixView = BasicMatrixView<Bf16>;
using ConstBf16MatrixView = BasicConstMatrixView<Bf16>;

}  // namespace emo
