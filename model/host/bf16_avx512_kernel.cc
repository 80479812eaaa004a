#include "model/host/bf16_kernel.h"
#include "model/host/instruction_set.h"
#include "model/host/transpose_registers.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#define EMO_AVX512_BF16 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")))

namespace emo {
namespace {

__mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, 16)) - 1);
}

// Words 0 to 15 and 16 to 31 of `halves`, alternating.
EMO_AVX512_BF16 __m512i interleave(__m512i halves) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

// Lane j: (first[j], second[j]), for the lanes of `mask`; the others zero.
EMO_AVX512_BF16 __m512i pairs_of(const float* first, const float* second, __mmask16 mask,
                                 __mmask16 second_mask) {
  return interleave(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(
      _mm512_maskz_loadu_ps(second_mask, second), _mm512_maskz_loadu_ps(mask, first))));
}
EMO_AVX512_BF16 __m512i pairs_of(const Bf16* first, const Bf16* second, __mmask16 mask,
                                 __mmask16 second_mask) {
  // The masked forms: gcc 12 warns of its own header's others.
  const __m512i lower = _mm512_maskz_cvtepu16_epi32(mask, _mm256_maskz_loadu_epi16(mask, first));
  const __m512i upper =
      _mm512_maskz_cvtepu16_epi32(second_mask, _mm256_maskz_loadu_epi16(second_mask, second));
  return _mm512_or_si512(lower, _mm512_maskz_slli_epi32(second_mask, upper, 16));
}

template <typename Stored>
EMO_AVX512_BF16 void pack(int64_t terms, int64_t columns, int64_t width,
                          BasicConstMatrixView<Stored> from, uint32_t* panel) {
  for (int64_t k = 0; k < terms; k += 2, panel += width) {
    const Stored* row = from.data + k * from.stride;
    for (int64_t j = 0; j < width; j += 16) {
      const __mmask16 mask = first_lanes(columns - j);
      const __mmask16 second_mask = k + 1 < terms ? mask : __mmask16{0};
      _mm512_mask_storeu_epi32(panel + j, first_lanes(width - j),
                               pairs_of(row + j, row + from.stride + j, mask, second_mask));
    }
  }
}

// The first `count` of 32 numbers, rounded; zeros behind them.
EMO_AVX512_BF16 __m512i first_numbers(int64_t count, const float* from) {
  return reinterpret_cast<__m512i>(
      _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first_lanes(count - 16), from + 16),
                          _mm512_maskz_loadu_ps(first_lanes(count), from)));
}
EMO_AVX512_BF16 __m512i first_numbers(int64_t count, const Bf16* from) {
  const uint64_t lanes =
      count >= 32 ? 0xFFFFFFFF : (uint64_t{1} << std::max<int64_t>(count, 0)) - 1;
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes), from);
}

template <typename Stored>
EMO_AVX512_BF16 void pack_transposed(int64_t terms, int64_t columns,
                                     BasicConstMatrixView<Stored> from, uint32_t* panel) {
  const int64_t pairs = (terms + 1) / 2;
  for (int64_t column = 0; column < kKernelColumns; column += 16) {
    for (int64_t pair = 0; pair < pairs; pair += 16) {
      const int64_t count = terms - 2 * pair;
      __m512i rows[16];
#pragma GCC unroll 16
      for (int64_t j = 0; j < 16; ++j) {
        const bool inside = column + j < columns;
        rows[j] = first_numbers(inside ? count : 0,
                                from.data + (inside ? column + j : 0) * from.stride + 2 * pair);
      }
      transpose_registers(rows);
      for (int64_t p = 0; p < std::min<int64_t>(16, pairs - pair); ++p) {
        _mm512_storeu_si512(panel + (pair + p) * kKernelColumns + column, rows[p]);
      }
    }
  }
}

// Two sums of 16 columns for each row stay in registers.
template <int kRows>
EMO_AVX512_BF16 void multiply_rows(int64_t pairs, PairedRows a, const uint32_t* b, bool add,
                                   MatrixView c) {
  __m512 sums[kRows][2];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; ++p) {
    const auto left = reinterpret_cast<__m512bh>(_mm512_load_si512(b + p * kKernelColumns));
    const auto right = reinterpret_cast<__m512bh>(_mm512_load_si512(b + p * kKernelColumns + 16));
    const char* of_row = a.data + p * a.pair;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      int32_t pair = 0;
      std::memcpy(&pair, of_row + i * a.row, sizeof pair);
      const auto everywhere = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], everywhere, left);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], everywhere, right);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      float* to = c.data + i * c.stride + 16 * half;
      if (add) sums[i][half] = _mm512_add_ps(_mm512_loadu_ps(to), sums[i][half]);
      _mm512_storeu_ps(to, sums[i][half]);
    }
  }
}

using MultiplyRows = void (*)(int64_t, PairedRows, const uint32_t*, bool, MatrixView);
template <int... kRows>
constexpr std::array<MultiplyRows, sizeof...(kRows)> by_rows(std::integer_sequence<int, kRows...>) {
  return {multiply_rows<kRows + 1>...};
}

void multiply(int64_t rows, int64_t pairs, PairedRows a, const uint32_t* b, bool add,
              MatrixView c) {
  static constexpr auto kByRows = by_rows(std::make_integer_sequence<int, kKernelRows>());
  kByRows[static_cast<size_t>(rows - 1)](pairs, a, b, add, c);
}

}  // namespace

const Bf16Kernel* avx512_bf16_kernel() {
  static const Bf16Kernel kernel{"AVX512_BF16",          pack<float>,           pack<Bf16>,
                                 pack_transposed<float>, pack_transposed<Bf16>, multiply};
  static const bool has_it =
      instruction_set() == InstructionSet::kAvx512 && __builtin_cpu_supports("avx512bf16") != 0;
  return has_it ? &kernel : nullptr;
}

}  // namespace emo

#else

namespace emo {
const Bf16Kernel* avx512_bf16_kernel() { return nullptr; }
}  // namespace emo

#endif
