#include "model/transpose.h"

#if defined(__x86_64__) && !defined(EMO_PORTABLE)
#include <immintrin.h>
#define EMO_AVX512 __attribute__((target("avx512f,prefer-vector-width=512")))
#endif

namespace emo {

void transpose_plainly(int64_t rows, int64_t columns, ConstMatrixView from, MatrixView to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      to.data[j * to.stride + i] = from.data[i * from.stride + j];
    }
  }
}

#ifdef EMO_AVX512
namespace {

constexpr int64_t kBlock = 16;

// Lane i of row j becomes lane j of row i. A round interleaves row i with row i + 8, which turns
// the bits of an entry's (row, lane) by one place; four rounds swap the two.
EMO_AVX512 void transpose_block(ConstMatrixView from, MatrixView to) {
#pragma GCC unroll 16
  for (int64_t i = kBlock; i < 2 * kBlock; ++i) {  // the rows below, which come next
    _mm_prefetch(from.data + i * from.stride, _MM_HINT_T0);
  }
  const __m512i lower = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i upper =
      _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  __m512 rows[kBlock];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kBlock; ++i) rows[i] = _mm512_loadu_ps(from.data + i * from.stride);
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    __m512 before[kBlock];
#pragma GCC unroll 16
    for (int64_t i = 0; i < kBlock; ++i) before[i] = rows[i];
#pragma GCC unroll 8
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      rows[2 * i] = _mm512_permutex2var_ps(before[i], lower, before[i + 8]);
      rows[2 * i + 1] = _mm512_permutex2var_ps(before[i], upper, before[i + 8]);
    }
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kBlock; ++i) _mm512_storeu_ps(to.data + i * to.stride, rows[i]);
}

}  // namespace

void transpose(int64_t rows, int64_t columns, ConstMatrixView from, MatrixView to) {
  static const bool has_avx512 = __builtin_cpu_supports("avx512f") != 0;
  const int64_t whole_rows = has_avx512 ? rows / kBlock * kBlock : 0;
  const int64_t whole_columns = has_avx512 ? columns / kBlock * kBlock : 0;
  for (int64_t i = 0; i < whole_rows; i += kBlock) {
    for (int64_t j = 0; j < whole_columns; j += kBlock) {
      transpose_block({from.data + i * from.stride + j, from.stride},
                      {to.data + j * to.stride + i, to.stride});
    }
  }
  transpose_plainly(whole_rows, columns - whole_columns, {from.data + whole_columns, from.stride},
                    {to.data + whole_columns * to.stride, to.stride});
  transpose_plainly(rows - whole_rows, columns, {from.data + whole_rows * from.stride, from.stride},
                    {to.data + whole_rows, to.stride});
}
#else
void transpose(int64_t rows, int64_t columns, ConstMatrixView from, MatrixView to) {
  transpose_plainly(rows, columns, from, to);
}
#endif

}  // namespace emo
