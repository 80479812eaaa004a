#include "model/host/transpose.h"

#include "model/host/instruction_set.h"
#include "model/host/transpose_registers.h"

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

EMO_AVX512 void transpose_block(ConstMatrixView from, MatrixView to) {
#pragma GCC unroll 16
  for (int64_t i = kBlock; i < 2 * kBlock; ++i) {  // the rows below, which come next
    _mm_prefetch(from.data + i * from.stride, _MM_HINT_T0);
  }
  __m512i rows[kBlock];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kBlock; ++i) rows[i] = _mm512_loadu_si512(from.data + i * from.stride);
  transpose_registers(rows);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kBlock; ++i) _mm512_storeu_si512(to.data + i * to.stride, rows[i]);
}

}  // namespace

void transpose(int64_t rows, int64_t columns, ConstMatrixView from, MatrixView to) {
  static const bool has_avx512 = instruction_set() == InstructionSet::kAvx512;
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
