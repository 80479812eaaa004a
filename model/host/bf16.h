// bf16: fp32 with the lower half of its bits cut off. Stored values only; sums are fp32.
#pragma once

#include <c10/util/BFloat16.h>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace emo {

using Bf16 = c10::BFloat16;

// Inline, so that loops over them are vectorised with their caller (model/host/simd.h).
__attribute__((always_inline)) inline float widen(float value) { return value; }
__attribute__((always_inline)) inline float widen(Bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16);
}

// The nearest Stored, ties to even; not-a-number stays that.
template <typename Stored>
__attribute__((always_inline)) inline Stored narrow(float value) {
  if constexpr (std::is_same_v<Stored, float>) {
    return value;
  } else {
    const auto bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    const bool is_number = (bits & 0x7FFFFFFF) <= 0x7F800000;
    return Bf16(static_cast<uint16_t>(is_number ? rounded : 0x7FC0), Bf16::from_bits());
  }
}

}  // namespace emo
