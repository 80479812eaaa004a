// The three matrix products of a linear layer without bias, y = x W^T, on row-major matrices in
// host memory: in tiles on all threads, or on the calling thread inside a task of the pool.
//
// Where x or dy is fp32 all is, and a library computes the tiles (model/host/fp32_product.h). Where
// it is bf16 the other factor is rounded to bf16 and sums are fp32 (model/host/bf16_product.h).
// Weights and their gradients are fp32 in both; what stands in the place of a weight inside
// attention is bf16.
#pragma once

#include <cstdint>

#include "model/host/matrix_view.h"

namespace emo {

// y[n, out] = beta * y + x[n, in] W[out, in]^T
void linear(int64_t n, int64_t out, int64_t in, ConstMatrixView x, ConstMatrixView w, float beta,
            MatrixView y);
void linear(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView x, ConstMatrixView w,
            float beta, MatrixView y);
void linear(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView x, ConstMatrixView w,
            float beta, Bf16MatrixView y);  // beta 0
void linear(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView x, ConstBf16MatrixView w,
            float beta, MatrixView y);

// dx[n, in] = beta * dx + dy[n, out] W[out, in]
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                           ConstMatrixView w, float beta, MatrixView dx);
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                           ConstMatrixView w, float beta, MatrixView dx);
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                           ConstMatrixView w, float beta, Bf16MatrixView dx);  // beta 0
void linear_input_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                           ConstBf16MatrixView w, float beta, Bf16MatrixView dx);  // beta 0

// dW[out, in] = beta * dW + dy[n, out]^T x[n, in]
void linear_weight_gradient(int64_t n, int64_t out, int64_t in, ConstMatrixView dy,
                            ConstMatrixView x, float beta, MatrixView dw);
void linear_weight_gradient(int64_t n, int64_t out, int64_t in, ConstBf16MatrixView dy,
                            ConstBf16MatrixView x, float beta, MatrixView dw);

}  // namespace emo
