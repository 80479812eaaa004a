// Tensors of the type that a pass stores: Stored is float or Bf16.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "model/host/bf16.h"
#include "parallel/buffers.h"

namespace emo {

template <typename Stored>
constexpr at::ScalarType kStoredType = c10::CppTypeToScalarType<Stored>::value;

// Calls f with a value of the C++ type of `type`, float or Bf16.
template <typename F>
auto with_stored(at::ScalarType type, const F& f) {
  return type == at::kBFloat16 ? f(Bf16()) : f(0.0f);
}

// shape_buffer (parallel/buffers.h), and where the memory is.
template <typename Stored>
Stored* shape_stored(at::Tensor* tensor, at::IntArrayRef shape) {
  return shape_buffer(tensor, shape, kStoredType<Stored>).template mutable_data_ptr<Stored>();
}

// An fp32 tensor as one of Stored: rounded into `buffer`, or itself.
template <typename Stored>
const at::Tensor& as_stored(const at::Tensor& fp32, at::Tensor* buffer);

}  // namespace emo
