// Loops that the compiler vectorises for several instruction sets, chosen when the program starts.
//
// A function marked EMO_SIMD is compiled for plain x86-64, AVX2 with FMA (x86-64-v3) and AVX-512
// (x86-64-v4); the loader picks by what the CPU has. Never name a product here ("arch=haswell"):
// the loader then takes that for the maker's name, and CPUs of others run the plain code.
// What it calls must be inline, or it stays plain. Sums inside need `#pragma omp simd reduction`,
// which allows the compiler to reorder them; the order then depends on the machine, never on the
// number of threads.
#pragma once

#include <bit>
#include <cstdint>

// clang, which only analyses this code (launch/tidy.sh), cannot clone templates.
#if defined(__x86_64__) && !defined(__clang__) && !defined(EMO_PORTABLE)
#define EMO_SIMD __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define EMO_SIMD
#endif

namespace emo {

// e^x to 2 units in the last place for x in [-87, 88]; below, a number under 1.7e-38; above, as
// at 88. The polynomial is that of Cephes' expf (S. Moshier, netlib).
__attribute__((always_inline)) inline float fast_exp(float x) {
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
