// The inner parts of a bf16 matrix product: packing of panels, and one small product of two panels.
// A kernel is written for one instruction set; model/host/bf16_product.h puts the parts together.
//
// A panel holds the terms of a few columns of a factor two by two, as the instruction reads them:
//   panel[p * width + j] = (term 2 p of column j, term 2 p + 1), the first in the lower 16 bits.
// Terms and columns that the matrix does not have are zero.
#pragma once

#include <cstdint>

#include "model/host/matrix_view.h"

namespace emo {

constexpr int64_t kKernelRows = 14;  // of a small product: with its 2 x 14 sums, 2 registers for b
constexpr int64_t kKernelColumns = 32;  // and 1 for a, 31 of AVX-512's 32 are in use

// The left factor: the pair p of row i is the 4 bytes at data + i * row + p * pair.
struct PairedRows {
  const char* data;
  int64_t row, pair;  // bytes
};

struct Bf16Kernel {
  const char* name;

  // Packs `columns` <= width columns of a matrix whose rows are terms, [terms, columns].
  void (*pack_fp32)(int64_t terms, int64_t columns, int64_t width, ConstMatrixView from,
                    uint32_t* panel);
  void (*pack_bf16)(int64_t terms, int64_t columns, int64_t width, ConstBf16MatrixView from,
                    uint32_t* panel);
  // Packs `columns` <= kKernelColumns rows of a matrix whose columns are terms, [columns, terms],
  // into a panel of kKernelColumns.
  void (*pack_transposed_fp32)(int64_t terms, int64_t columns, ConstMatrixView from,
                               uint32_t* panel);
  void (*pack_transposed_bf16)(int64_t terms, int64_t columns, ConstBf16MatrixView from,
                               uint32_t* panel);

  // c[rows, kKernelColumns] = (add ? c : 0) + a b for rows <= kKernelRows; b is a panel of
  // kKernelColumns, aligned to 64 bytes.
  void (*multiply)(int64_t rows, int64_t pairs, PairedRows a, const uint32_t* b, bool add,
                   MatrixView c);
};

// Plain loops, for any CPU; the measure of the others.
const Bf16Kernel& plain_bf16_kernel();

// AVX-512 with AVX512_BF16, or null where the compiler or the CPU has none.
const Bf16Kernel* avx512_bf16_kernel();

}  // namespace emo
