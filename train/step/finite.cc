#include "train/step/finite.h"

#include <cstdint>
#include <cstring>

namespace emo {
namespace {

// By the exponent's bits, so that the loop is one over integers that the compiler vectorises.
bool all_finite(const float* numbers, int64_t count) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, numbers + i, sizeof bits);
    bad |= (bits & kExponent) == kExponent ? 1u : 0u;
  }
  return bad == 0;
}

}  // namespace

std::string first_bad_tensor(const ParameterLayout& layout, const FlatBuffers& buffers) {
  for (const ParameterInfo& parameter : layout.parameters) {
    if (!all_finite(parameter_data(parameter, buffers), parameter.numel())) return parameter.name;
  }
  return "";
}

}  // namespace emo
