// Tensors that keep their memory from step to step.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

#include <algorithm>

#include "parallel/parallel_for.h"

namespace emo {

// Makes `tensor` a host tensor of this shape and type, contents undefined; allocates only where it
// has never been as large before (a fresh page costs more than the arithmetic on it). What grows
// once will do so again, as rows of experts do: then there is a sixteenth to spare. Nothing is
// copied, and the old memory is given back first.
inline const at::Tensor& shape_buffer(at::Tensor* tensor, at::IntArrayRef shape,
                                      at::ScalarType type = at::kFloat) {
  const auto options = at::TensorOptions().dtype(type);
  if (!tensor->defined() || tensor->scalar_type() != type) {
    *tensor = at::empty(shape, options);
  } else if (tensor->sizes() != shape) {
    const int64_t needed = c10::multiply_integers(shape);
    if (tensor->storage().nbytes() < static_cast<size_t>(needed) * tensor->element_size()) {
      const bool first = tensor->storage().nbytes() == 0;
      tensor->reset();
      *tensor = at::empty({first ? needed : needed + needed / 16}, options);
    }
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
