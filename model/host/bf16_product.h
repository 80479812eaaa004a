// Matrix products whose factors are rounded to bf16 and whose sums are fp32, on one thread.
//
// Weights come as fp32 and are rounded while they are packed, at each product: that takes a few
// hundredths of the product's time (docs/performance.md) and the memory of one panel block, where
// copies of all weights in both orientations would take 4 bytes for each.
#pragma once

#include <cstdint>

#include "model/host/bf16_kernel.h"
#include "model/host/matrix_view.h"

namespace emo {

// True where bf16 products are faster than fp32 ones: the CPU has AVX512_BF16. Elsewhere they are
// plain loops with the same result up to the order of sums.
bool cpu_has_bf16_products();

// The best kernel of this CPU.
const Bf16Kernel& bf16_kernel();

// Each factor as it lies in memory, after op: 'N' as it is, 'T' transposed.
// C[m, n] = beta * C + A[m, k] op(B)[k, n]; beta is 0 or 1, with a bf16 C 0. B and C: float or
// Bf16.
template <typename B, typename C>
void bf16_product(const Bf16Kernel& kernel, char op_b, int64_t m, int64_t n, int64_t k,
                  ConstBf16MatrixView a, BasicConstMatrixView<B> b, float beta,
                  BasicMatrixView<C> c);

// C[m, n] = beta * C + A[k, m]^T B[k, n]; beta is 0 or 1.
void bf16_product_transposed(const Bf16Kernel& kernel, int64_t m, int64_t n, int64_t k,
                             ConstBf16MatrixView a, ConstBf16MatrixView b, float beta,
                             MatrixView c);

}  // namespace emo
