// Tensors that keep their memory from step to step.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "parallel/parallel_for.h"

namespace emo {

// Makes `tensor` a host tensor of this shape and type, contents undefined; allocates only where it
// has never been as large before (a fresh page costs more than the arithmetic on it).
inline const at::Tensor& shape_buffer(at::Tensor* tensor, at::IntArrayRef shape,
                                      at::ScalarType type = at::kFloat) {
  if (!tensor->defined() || tensor->scalar_type() != type) {
    *tensor = at::empty(shape, at::TensorOptions().dtype(type));
  } else if (tensor->sizes() != shape) {
    tensor->resize_(shape);
  }
  return *tensor;
}

// Zeroes an fp32 host tensor on all threads.
inline void zero_buffer(const at::Tensor& tensor) {
  auto* data = tensor.mutable_data_ptr<float>();
  parallel_for(tensor.numel(), 1 << 16,
               [&](int64_t begin, int64_t end) { std::fill(data + begin, data + end, 0.0f); });
}

// Copies an fp32 host tensor on all threads.
inline void copy_buffer(const at::Tensor& from, const at::Tensor& to) {
  const auto* source = from.const_data_ptr<float>();
  auto* target = to.mutable_data_ptr<float>();
  parallel_for(from.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    std::copy(source + begin, source + end, target + begin);
  });
}

}  // namespace emo
