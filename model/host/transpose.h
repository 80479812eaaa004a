// A matrix turned over, for products that are faster on rows than on columns.
#pragma once

#include "model/host/matrix_view.h"

namespace emo {

// to[columns, rows] = from[rows, columns]^T, on the calling thread; blocks of 16 x 16 in registers
// where the CPU has AVX-512.
void transpose(int64_t rows, int64_t columns, ConstMatrixView from, MatrixView to);

// The same, entry by entry.
void transpose_plainly(int64_t rows, int64_t columns, ConstMatrixView from, MatrixView to);

}  // namespace emo
