#include "model/host/stored.h"

#include "model/host/simd.h"

namespace emo {
namespace {

EMO_SIMD void round_all(int64_t begin, int64_t end, const float* from, Bf16* to) {
  for (int64_t i = begin; i < end; ++i) to[i] = narrow<Bf16>(from[i]);
}

}  // namespace

template <>
const at::Tensor& as_stored<float>(const at::Tensor& fp32, at::Tensor*) {
  return fp32;
}

template <>
const at::Tensor& as_stored<Bf16>(const at::Tensor& fp32, at::Tensor* buffer) {
  auto* to = shape_stored<Bf16>(buffer, fp32.sizes());
  const auto* from = fp32.const_data_ptr<float>();
  parallel_for(fp32.numel(), 1 << 14,
               [&](int64_t begin, int64_t end) { vectorised<round_all>(begin, end, from, to); });
  return *buffer;
}

}  // namespace emo
