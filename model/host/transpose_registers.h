// A block of 16 x 16 numbers of 32 bits turned over in AVX-512 registers. Only where EMO_AVX512 is
// defined, and only to be called where the CPU has avx512f.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#define EMO_AVX512 __attribute__((target("avx512f,prefer-vector-width=512")))

namespace emo {

// Lane i of row j becomes lane j of row i. A round interleaves row i with row i + 8, which turns
// the bits of an entry's (row, lane) by one place; four rounds swap the two.
EMO_AVX512 inline void transpose_registers(__m512i (&rows)[16]) {
  const __m512i lower = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i upper =
      _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    __m512i before[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) before[i] = rows[i];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      rows[2 * i] = _mm512_permutex2var_epi32(before[i], lower, before[i + 8]);
      rows[2 * i + 1] = _mm512_permutex2var_epi32(before[i], upper, before[i + 8]);
    }
  }
}

}  // namespace emo
#endif
