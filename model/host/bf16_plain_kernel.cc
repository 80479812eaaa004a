#include <algorithm>

#include "model/host/bf16_kernel.h"

namespace emo {
namespace {

uint32_t pair_of(float first, float second) {
  return static_cast<uint32_t>(narrow<Bf16>(first).x) |
         static_cast<uint32_t>(narrow<Bf16>(second).x) << 16;
}

// term(j, k): term k of column j.
template <typename Term>
void pack_terms(int64_t terms, int64_t columns, int64_t width, uint32_t* panel, const Term& term) {
  for (int64_t k = 0; k < terms; k += 2) {
    for (int64_t j = 0; j < width; ++j) {
      *panel++ = j < columns ? pair_of(term(j, k), k + 1 < terms ? term(j, k + 1) : 0) : 0;
    }
  }
}

template <typename Stored>
void pack(int64_t terms, int64_t columns, int64_t width, BasicConstMatrixView<Stored> from,
          uint32_t* panel) {
  pack_terms(terms, columns, width, panel,
             [&](int64_t j, int64_t k) { return widen(from.data[k * from.stride + j]); });
}

template <typename Stored>
void pack_transposed(int64_t terms, int64_t columns, BasicConstMatrixView<Stored> from,
                     uint32_t* panel) {
  pack_terms(terms, columns, kKernelColumns, panel,
             [&](int64_t j, int64_t k) { return widen(from.data[j * from.stride + k]); });
}

float first_of(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float second_of(uint32_t pair) { return std::bit_cast<float>(pair & 0xFFFF0000); }

void multiply(int64_t rows, int64_t pairs, PairedRows a, const uint32_t* b, bool add,
              MatrixView c) {
  for (int64_t i = 0; i < rows; ++i) {
    float sums[kKernelColumns] = {};
    for (int64_t p = 0; p < pairs; ++p) {
      uint32_t pair = 0;
      std::copy_n(a.data + i * a.row + p * a.pair, sizeof pair, reinterpret_cast<char*>(&pair));
      for (int64_t j = 0; j < kKernelColumns; ++j) {
        const uint32_t other = b[p * kKernelColumns + j];
        sums[j] += second_of(pair) * second_of(other);
        sums[j] += first_of(pair) * first_of(other);
      }
    }
    float* to = c.data + i * c.stride;
    for (int64_t j = 0; j < kKernelColumns; ++j) to[j] = (add ? to[j] : 0) + sums[j];
  }
}

}  // namespace

const Bf16Kernel& plain_bf16_kernel() {
  static const Bf16Kernel kernel{"plain loops",          pack<float>,           pack<Bf16>,
                                 pack_transposed<float>, pack_transposed<Bf16>, multiply};
  return kernel;
}

}  // namespace emo
