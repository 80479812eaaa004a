// A row-major matrix inside a larger one: row i starts at data + i * stride. Owns nothing.
#pragma once

#include <cstdint>

#include "model/bf16.h"

namespace emo {

template <typename E>
struct BasicMatrixView {
  E* data;
  int64_t stride;
};
template <typename E>
struct BasicConstMatrixView {
  BasicConstMatrixView(const E* d, int64_t s) : data(d), stride(s) {}
  BasicConstMatrixView(BasicMatrixView<E> m)  // NOLINT: a view of a view
      : data(m.data), stride(m.stride) {}
  const E* data;
  int64_t stride;
};

using MatrixView = BasicMatrixView<float>;
using ConstMatrixView = BasicConstMatrixView<float>;
using Bf16MatrixView = BasicMatrixView<Bf16>;
using ConstBf16MatrixView = BasicConstMatrixView<Bf16>;

}  // namespace emo
