// Tensors of the type that a pass stores: E is float or Bf16.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "model/host/bf16.h"
#include "parallel/buffers.h"

namespace emo {

template <typename E>
constexpr at::ScalarType kElementType = c10::CppTypeToScalarType<E>::value;

// Calls f with a value of the type that `precision` stores.
template <typename F>
auto with_element(Precision precision, const F& f) {
  return precision == Precision::kBf16 ? f(Bf16()) : f(0.0f);
}

// shape_buffer (parallel/buffers.h), and where the memory is.
template <typename E>
E* shape_stored(at::Tensor* tensor, at::IntArrayRef shape) {
  return shape_buffer(tensor, shape, kElementType<E>).template mutable_data_ptr<E>();
}

// An fp32 tensor as one of E: rounded into `buffer`, or itself.
template <typename E>
const at::Tensor& as_stored(const at::Tensor& fp32, at::Tensor* buffer);

}  // namespace emo
