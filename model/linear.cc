#include "model/linear.h"

#include <c10/util/Exception.h>

#include <limits>

// BLAS, column-major; libtorch exports MKL's.
extern "C" void sgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n,
                       const int* k, const float* alpha, const float* a, const int* lda,
                       const float* b, const int* ldb, const float* beta, float* c, const int* ldc);

namespace emo {
namespace {

// C[m, n] = beta * C + alpha * op(A)[m, k] op(B)[k, n], row-major: the column-major product of the
// transposes, in reverse order.
void gemm(char op_a, char op_b, int64_t m, int64_t n, int64_t k, float alpha, ConstMatrixView a,
          ConstMatrixView b, float beta, MatrixView c) {
  if (m == 0 || n == 0) return;
  if (k == 0) {  // BLAS leaves it to the caller; an empty sum is zero
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        float& value = c.data[i * c.stride + j];
        value = beta == 0 ? 0 : beta * value;
      }
    }
    return;
  }
  constexpr int64_t kMax = std::numeric_limits<int>::max();
  TORCH_CHECK(m <= kMax && n <= kMax && k <= kMax, "matrix product of ", m, " x ", n, " x ", k);
  const int rows = static_cast<int>(n);
  const int columns = static_cast<int>(m);
  const int inner = static_cast<int>(k);
  const int lda = static_cast<int>(a.stride);
  const int ldb = static_cast<int>(b.stride);
  const int ldc = static_cast<int>(c.stride);
  sgemm_(&op_b, &op_a, &rows, &columns, &inner, &alpha, b.data, &ldb, a.data, &lda, &beta, c.data,
         &ldc);
}

}  // namespace

void linear(int64_t n, int64_t out, int64_t in, ConstMatrixView x, ConstMatrixView w, float beta,
            MatrixView y, float alpha) {
  gemm('N', 'T', n, out, in, alpha, x, w, beta, y);
}

void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                           ConstMatrixView w, float beta, MatrixView dx) {
  gemm('N', 'N', n, in, out, 1, dy, w, beta, dx);
}

void linear_weight_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                            ConstMatrixView x, float beta, MatrixView dw) {
  gemm('T', 'N', out, in, n, 1, dy, x, beta, dw);
}

}  // namespace emo
