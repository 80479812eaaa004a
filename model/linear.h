// The three matrix products of a linear layer without bias, y = x W^T, on row-major fp32 matrices
// in host memory. MKL inside libtorch computes them: in tiles on all threads, or on the calling
// thread inside a task of the pool.
#pragma once

#include <cstdint>

namespace emo {

// A row-major matrix inside a larger one: row i starts at data + i * stride.
struct MatrixView {
  float* data;
  int64_t stride;
};
struct ConstMatrixView {
  ConstMatrixView(const float* d, int64_t s) : data(d), stride(s) {}
  ConstMatrixView(MatrixView m) : data(m.data), stride(m.stride) {}  // NOLINT: a view of a view
  const float* data;
  int64_t stride;
};

// y[n, out] = beta * y + alpha * x[n, in] W[out, in]^T
void linear(int64_t n, int64_t out, int64_t in, ConstMatrixView x, ConstMatrixView w, float beta,
            MatrixView y, float alpha = 1);

// dx[n, in] = beta * dx + dy[n, out] W[out, in]
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                           ConstMatrixView w, float beta, MatrixView dx);

// dW[out, in] = beta * dW + dy[n, out]^T x[n, in]
void linear_weight_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                            ConstMatrixView x, float beta, MatrixView dw);

}  // namespace emo
