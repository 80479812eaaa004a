#include "model/host/bf16_product.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "model/host/simd.h"
#include "model/host/workspace.h"

namespace emo {
namespace {

// Sizes of the packed blocks: together they stay in a second-level cache of 1 MiB.
constexpr int64_t kMostTerms = 512;               // of a block where C can take partial sums
constexpr int64_t kBlockRows = 16 * kKernelRows;  //
constexpr int64_t kBlockElements = 256 * 512;     // of B: columns x terms
constexpr int64_t kMostColumns = 512;

int64_t pairs_of(int64_t terms) { return (terms + 1) / 2; }
int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// c[rows, columns] (+)= tile[rows, kKernelColumns]
template <typename C>
EMO_SIMD void move_tile(int64_t rows, int64_t columns, const float* tile, bool add,
                        BasicMatrixView<C> c) {
  for (int64_t i = 0; i < rows; ++i) {
    C* to = c.data + i * c.stride;
    const float* from = tile + i * kKernelColumns;
    if (add) {
      for (int64_t j = 0; j < columns; ++j) to[j] = narrow<C>(widen(to[j]) + from[j]);
    } else {
      for (int64_t j = 0; j < columns; ++j) to[j] = narrow<C>(from[j]);
    }
  }
}

// A tile of C, at most kKernelRows x kKernelColumns: straight into a whole one of fp32, else
// through one of the kernel's size.
template <typename C>
void multiply_tile(const Bf16Kernel& kernel, int64_t rows, int64_t columns, int64_t pairs,
                   PairedRows a, const uint32_t* b, bool add, BasicMatrixView<C> c) {
  if constexpr (std::is_same_v<C, float>) {
    if (columns == kKernelColumns) return kernel.multiply(rows, pairs, a, b, add, c);
  }
  alignas(64) float tile[kKernelRows * kKernelColumns];
  kernel.multiply(rows, pairs, a, b, /*add=*/false, {tile, kKernelColumns});
  vectorised<move_tile<C>>(rows, columns, static_cast<const float*>(tile), add, c);
}

// C[m, n] (+)= A B, block by block. pack_b(first_term, terms, column, columns, panel) packs a panel
// of B; rows_of_a(row, rows, first_term, terms, memory) answers rows of A, packed where they must
// be.
template <typename C, typename PackB, typename RowsOfA>
void product(const Bf16Kernel& kernel, int64_t m, int64_t n, int64_t k, bool add,
             BasicMatrixView<C> c, const PackB& pack_b, const RowsOfA& rows_of_a) {
  thread_local Workspace packed_a, packed_b;
  // A bf16 C takes whole sums only.
  const int64_t most_terms = std::is_same_v<C, float> ? std::min(k, kMostTerms) : k;
  const int64_t most_columns =
      std::min(round_up(n, kKernelColumns),
               std::clamp(kBlockElements / most_terms / kKernelColumns * kKernelColumns,
                          kKernelColumns, kMostColumns));
  uint32_t* b = packed_b.get<uint32_t>(most_columns * pairs_of(most_terms));
  uint32_t* a_memory = packed_a.get<uint32_t>(kBlockRows * pairs_of(most_terms));
  for (int64_t column = 0; column < n; column += most_columns) {
    const int64_t columns = std::min(most_columns, n - column);
    for (int64_t term = 0; term < k; term += most_terms) {
      const int64_t terms = std::min(most_terms, k - term);
      const int64_t pairs = pairs_of(terms);
      for (int64_t j = 0; j < columns; j += kKernelColumns) {
        pack_b(term, terms, column + j, std::min(kKernelColumns, columns - j), b + j * pairs);
      }
      for (int64_t block = 0; block < m; block += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, m - block);
        const auto a = rows_of_a(block, rows, term, terms, a_memory);
        for (int64_t j = 0; j < columns; j += kKernelColumns) {
          for (int64_t i = 0; i < rows; i += kKernelRows) {
            multiply_tile(
                kernel, std::min(kKernelRows, rows - i), std::min(kKernelColumns, columns - j),
                pairs, a(i), b + j * pairs, add || term > 0,
                BasicMatrixView<C>{c.data + (block + i) * c.stride + column + j, c.stride});
          }
        }
      }
    }
  }
}

// Rows of bf16 whose pairs lie side by side already.
PairedRows pairs_in_place(ConstBf16MatrixView a) {
  return {reinterpret_cast<const char*>(a.data), a.stride * int64_t{sizeof(Bf16)},
          2 * int64_t{sizeof(Bf16)}};
}

// The same with an odd number of terms: copied, a zero behind the last.
PairedRows pad_rows(int64_t rows, int64_t terms, ConstBf16MatrixView a, uint32_t* memory) {
  auto* to = reinterpret_cast<Bf16*>(memory);
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(a.data + i * a.stride, terms, to + i * (terms + 1));
    to[i * (terms + 1) + terms] = Bf16(0, Bf16::from_bits());
  }
  return pairs_in_place({to, terms + 1});
}

}  // namespace

bool cpu_has_bf16_products() { return avx512_bf16_kernel() != nullptr; }

const Bf16Kernel& bf16_kernel() {
  const Bf16Kernel* fast = avx512_bf16_kernel();
  return fast != nullptr ? *fast : plain_bf16_kernel();
}

template <typename B, typename C>
void bf16_product(const Bf16Kernel& kernel, char op_b, int64_t m, int64_t n, int64_t k,
                  ConstBf16MatrixView a, BasicConstMatrixView<B> b, float beta,
                  BasicMatrixView<C> c) {
  constexpr bool kFromFp32 = std::is_same_v<B, float>;
  TORCH_CHECK(beta == 0 || (beta == 1 && std::is_same_v<C, float>), "bf16 product: beta ", beta);
  const auto pack_b = [&](int64_t term, int64_t terms, int64_t column, int64_t columns,
                          uint32_t* panel) {
    const bool transposed = op_b == 'T';
    const BasicConstMatrixView<B> from(
        b.data + (transposed ? column * b.stride + term : term * b.stride + column), b.stride);
    if constexpr (kFromFp32) {
      if (transposed) return kernel.pack_transposed_fp32(terms, columns, from, panel);
      kernel.pack_fp32(terms, columns, kKernelColumns, from, panel);
    } else {
      if (transposed) return kernel.pack_transposed_bf16(terms, columns, from, panel);
      kernel.pack_bf16(terms, columns, kKernelColumns, from, panel);
    }
  };
  const auto rows_of_a = [&](int64_t row, int64_t rows, int64_t term, int64_t terms,
                             uint32_t* memory) {
    const ConstBf16MatrixView block(a.data + row * a.stride + term, a.stride);
    const PairedRows all =
        terms % 2 == 0 ? pairs_in_place(block) : pad_rows(rows, terms, block, memory);
    return [all](int64_t i) { return PairedRows{all.data + i * all.row, all.row, all.pair}; };
  };
  product(kernel, m, n, k, beta == 1, c, pack_b, rows_of_a);
}
template void bf16_product(const Bf16Kernel&, char, int64_t, int64_t, int64_t, ConstBf16MatrixView,
                           BasicConstMatrixView<float>, float, BasicMatrixView<float>);
template void bf16_product(const Bf16Kernel&, char, int64_t, int64_t, int64_t, ConstBf16MatrixView,
                           BasicConstMatrixView<float>, float, BasicMatrixView<Bf16>);
template void bf16_product(const Bf16Kernel&, char, int64_t, int64_t, int64_t, ConstBf16MatrixView,
                           BasicConstMatrixView<Bf16>, float, BasicMatrixView<float>);
template void bf16_product(const Bf16Kernel&, char, int64_t, int64_t, int64_t, ConstBf16MatrixView,
                           BasicConstMatrixView<Bf16>, float, BasicMatrixView<Bf16>);

void bf16_product_transposed(const Bf16Kernel& kernel, int64_t m, int64_t n, int64_t k,
                             ConstBf16MatrixView a, ConstBf16MatrixView b, float beta,
                             MatrixView c) {
  TORCH_CHECK(beta == 0 || beta == 1, "bf16 product: beta ", beta);
  const auto pack_b = [&](int64_t term, int64_t terms, int64_t column, int64_t columns,
                          uint32_t* panel) {
    kernel.pack_bf16(terms, columns, kKernelColumns, {b.data + term * b.stride + column, b.stride},
                     panel);
  };
  const auto rows_of_a = [&](int64_t row, int64_t rows, int64_t term, int64_t terms,
                             uint32_t* memory) {
    const int64_t panel = kKernelRows * pairs_of(terms);
    for (int64_t i = 0; i < rows; i += kKernelRows) {
      kernel.pack_bf16(terms, std::min(kKernelRows, rows - i), kKernelRows,
                       {a.data + term * a.stride + row + i, a.stride},
                       memory + i / kKernelRows * panel);
    }
    return [memory, panel](int64_t i) {
      constexpr int64_t kBytes = sizeof(uint32_t);
      return PairedRows{reinterpret_cast<const char*>(memory + i / kKernelRows * panel), kBytes,
                        kKernelRows * kBytes};
    };
  };
  product(kernel, m, n, k, beta == 1, c, pack_b, rows_of_a);
}

}  // namespace emo
