#include "model/host/linear.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>

#include "model/host/bf16_product.h"
#include "model/host/fp32_product.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// The size of the tiles of C that are tasks, from the product's size alone, so that a result does
// not depend on the number of threads: halved until there are enough, while halves are still large
// enough to be computed at full speed.
struct Tiles {
  int64_t rows, columns;
};
Tiles choose_tiles(int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kEnough = 16;  // more threads than that have no share in one product
  constexpr int64_t kSmallest = 128;
  constexpr int64_t kSmallestWork = 1 << 20;  // multiply-adds
  Tiles tiles{m, n};
  const auto halved = [](int64_t size) { return ((size + 1) / 2 + 31) / 32 * 32; };
  for (int64_t count = 1; count < kEnough; count *= 2) {
    int64_t& larger = tiles.rows >= tiles.columns ? tiles.rows : tiles.columns;
    if (larger < 2 * kSmallest || tiles.rows * tiles.columns * k < 2 * kSmallestWork) break;
    larger = halved(larger);
  }
  return tiles;
}

// C[m, n] = beta * C + op(A)[m, k] op(B)[k, n], row-major, on the calling thread.
void gemm_tile(char op_a, char op_b, int64_t m, int64_t n, int64_t k, ConstMatrixView a,
               ConstMatrixView b, float beta, MatrixView c) {
  fp32_product(fp32_library(), op_a, op_b, m, n, k, a, b, beta, c);
}

template <typename B, typename C>
void gemm_tile(char op_a, char op_b, int64_t m, int64_t n, int64_t k, ConstBf16MatrixView a,
               BasicConstMatrixView<B> b, float beta, BasicMatrixView<C> c) {
  if constexpr (std::is_same_v<B, Bf16> && std::is_same_v<C, float>) {
    if (op_a == 'T') return bf16_product_transposed(bf16_kernel(), m, n, k, a, b, beta, c);
  }
  TORCH_CHECK(op_a == 'N', "a bf16 product with A transposed needs a bf16 B and an fp32 C");
  bf16_product(bf16_kernel(), op_b, m, n, k, a, b, beta, c);
}

// The same, on all threads outside a task.
template <typename A, typename B, typename C>
void gemm(char op_a, char op_b, int64_t m, int64_t n, int64_t k, BasicConstMatrixView<A> a,
          BasicConstMatrixView<B> b, float beta, BasicMatrixView<C> c) {
  if (m == 0 || n == 0) return;
  if (k == 0) {  // BLAS leaves it to the caller; an empty sum is zero
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        C& value = c.data[i * c.stride + j];
        value = narrow<C>(beta == 0 ? 0 : beta * widen(value));
      }
    }
    return;
  }
  constexpr int64_t kMax = std::numeric_limits<int>::max();
  TORCH_CHECK(m <= kMax && n <= kMax && k <= kMax, "matrix product of ", m, " x ", n, " x ", k);
  if (ThreadPool::inside_task()) {
    gemm_tile(op_a, op_b, m, n, k, a, b, beta, c);
    return;
  }
  const Tiles tiles = choose_tiles(m, n, k);
  const int64_t down = (m + tiles.rows - 1) / tiles.rows;
  const int64_t across = (n + tiles.columns - 1) / tiles.columns;
  parallel_tasks(down * across, [&](int64_t i) {
    const int64_t row = i / across * tiles.rows;
    const int64_t column = i % across * tiles.columns;
    gemm_tile(
        op_a, op_b, std::min(tiles.rows, m - row), std::min(tiles.columns, n - column), k,
        BasicConstMatrixView<A>(a.data + (op_a == 'N' ? row * a.stride : row), a.stride),
        BasicConstMatrixView<B>(b.data + (op_b == 'N' ? column : column * b.stride), b.stride),
        beta, BasicMatrixView<C>{c.data + row * c.stride + column, c.stride});
  });
}

}  // namespace

void linear(int64_t n, int64_t out, int64_t in, ConstMatrixView x, ConstMatrixView w, float beta,
            MatrixView y) {
  gemm('N', 'T', n, out, in, x, w, beta, y);
}
void linear(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView x, ConstMatrixView w,
            float beta, MatrixView y) {
  gemm('N', 'T', n, out, in, x, w, beta, y);
}
void linear(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView x, ConstMatrixView w,
            float beta, Bf16MatrixView y) {
  gemm('N', 'T', n, out, in, x, w, beta, y);
}
void linear(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView x, ConstBf16MatrixView w,
            float beta, MatrixView y) {
  gemm('N', 'T', n, out, in, x, w, beta, y);
}

void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                           ConstMatrixView w, float beta, MatrixView dx) {
  gemm('N', 'N', n, in, out, dy, w, beta, dx);
}
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                           ConstMatrixView w, float beta, MatrixView dx) {
  gemm('N', 'N', n, in, out, dy, w, beta, dx);
}
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                           ConstMatrixView w, float beta, Bf16MatrixView dx) {
  gemm('N', 'N', n, in, out, dy, w, beta, dx);
}
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                           ConstBf16MatrixView w, float beta, Bf16MatrixView dx) {
  gemm('N', 'N', n, in, out, dy, w, beta, dx);
}

void linear_weight_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                            ConstMatrixView x, float beta, MatrixView dw) {
  gemm('T', 'N', out, in, n, dy, x, beta, dw);
}
void linear_weight_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                            ConstBf16MatrixView x, float beta, MatrixView dw) {
  gemm('T', 'N', out, in, n, dy, x, beta, dw);
}

}  // namespace emo
