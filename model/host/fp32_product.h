// A product of fp32 matrices on the calling thread, by the library that is fastest on this CPU.
#pragma once

#include <cstdint>

#include "model/host/matrix_view.h"

namespace emo {

// kMkl is inside libtorch. It uses AVX-512 on Intel's CPUs alone; elsewhere its products are
// AVX2's, which is half the rate of a CPU whose AVX-512 units are 512 bits wide. kOneDnn asks for
// the instructions, not for the maker.
enum class Fp32Library { kMkl, kOneDnn };

// oneDNN on AMD's CPUs from Zen 5 on (Zen 4 computes AVX-512 in two halves, so AVX2 has its peak),
// MKL on all others. It depends on the CPU alone, so that equal runs on equal machines give equal
// bits.
Fp32Library fp32_library();
const char* fp32_library_name(Fp32Library library);  // "MKL", "oneDNN"

// C[m, n] = beta * C + op(A)[m, k] op(B)[k, n], row-major; op is 'N' or 'T'. Sizes fit in an int.
// oneDNN's threads are OpenMP's: its first product on a thread sets those to one for that thread,
// libtorch's with them.
void fp32_product(Fp32Library library, char op_a, char op_b, int64_t m, int64_t n, int64_t k,
                  ConstMatrixView a, ConstMatrixView b, float beta, MatrixView c);

}  // namespace emo
