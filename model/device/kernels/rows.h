// Rows of matrices, S (fp32 or bf16), gathered and added up by index.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// to [m, D]: row i is row index[i] / divisor of `from` [n, D], or zero where index i32 [m] is -1.
void gather_rows(const at::Tensor& from, const at::Tensor& index, int64_t divisor,
                 const at::Tensor& to);

// to [n, D]: row i becomes (`onto`: itself, else 0) + the sum over k, in order and in fp32, of row
// index[i, k] of `from`; index i32 [n, k] of any strides, -1: none.
void add_rows(const at::Tensor& from, const at::Tensor& index, bool onto, const at::Tensor& to);

}  // namespace emo::device
