// Loops that the compiler vectorises for several instruction sets, chosen when the program starts.
//
// The body of such a loop is a function marked EMO_SIMD, and vectorised<body>(arguments...) runs
// it: compiled for plain x86-64, AVX2 with FMA (x86-64-v3) and AVX-512 (x86-64-v4), whichever
// model/host/instruction_set.h chose. What a body calls must be inline too, or it stays plain. Sums
// inside need `#pragma omp simd reduction`, which allows the compiler to reorder them; the order
// then depends on the instruction set, never on the number of threads.
#pragma once

#include <bit>
#include <cstdint>

#include "model/host/instruction_set.h"

#define EMO_SIMD __attribute__((always_inline)) inline

namespace emo {

#ifdef EMO_SEVERAL_INSTRUCTION_SETS
template <auto kBody, typename... Arguments>
__attribute__((noinline, target("arch=x86-64-v3"))) auto run_with_avx2(Arguments... arguments) {
  return kBody(arguments...);
}
template <auto kBody, typename... Arguments>
__attribute__((noinline, target("arch=x86-64-v4"))) auto run_with_avx512(Arguments... arguments) {
  return kBody(arguments...);
}
#endif
template <auto kBody, typename... Arguments>
__attribute__((noinline)) auto run_portably(Arguments... arguments) {
  return kBody(arguments...);
}

template <auto kBody, typename... Arguments>
auto vectorised(Arguments... arguments) {
#ifdef EMO_SEVERAL_INSTRUCTION_SETS
  const InstructionSet set = instruction_set();
  if (set == InstructionSet::kAvx512) return run_with_avx512<kBody>(arguments...);
  if (set == InstructionSet::kAvx2) return run_with_avx2<kBody>(arguments...);
#endif
  return run_portably<kBody>(arguments...);
}

// std::max by value: where it answers a reference to an array's entry, the loop stays scalar.
EMO_SIMD float larger(float a, float b) { return b > a ? b : a; }

// e^x to 2 units in the last place for x in [-87, 88]; below, a number under 1.7e-38; above, as
// at 88. The polynomial is that of Cephes' expf (S. Moshier, netlib).
EMO_SIMD float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t power = (static_cast<int32_t>(n) + 127) << 23;
  return p * std::bit_cast<float>(power);
}

}  // namespace emo
