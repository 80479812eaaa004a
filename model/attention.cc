#include "model/attention.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "model/linear.h"
#include "model/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kQueries = 64;  // query rows whose scores are in memory at once

// One (span, head): where its matrices are.
struct Task {
  int64_t begin, length;  // tokens
  int64_t head_offset;    // columns within D
  int64_t D, stride;      // model width, row length of qkv
  float scale;
};

Task task_at(const AttentionShape& shape, int64_t i) {
  const int64_t D = shape.heads * shape.head_dim;
  const int64_t span = i / shape.heads;
  const int64_t begin = shape.span_ends[span];
  return {begin,
          shape.span_ends[span + 1] - begin,
          i % shape.heads * shape.head_dim,
          D,
          3 * D,
          1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
}

// Causal softmax of `rows` rows of scores [rows, keys] in place; row i sees keys [0, visible + i).
EMO_SIMD void softmax_rows(int64_t rows, int64_t keys, int64_t visible, float* scores,
                           float* logsumexp, int64_t logsumexp_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = scores + i * keys;
    const int64_t seen = visible + i;
    float largest = row[0];
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < seen; ++j) largest = std::max(largest, row[j]);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < seen; ++j) {
      row[j] = fast_exp(row[j] - largest);
      sum += row[j];
    }
    const float inverse = 1.0f / sum;
    for (int64_t j = 0; j < seen; ++j) row[j] *= inverse;
    std::fill(row + seen, row + keys, 0.0f);
    logsumexp[i * logsumexp_stride] = largest + std::log(sum);
  }
}

// From scores to probabilities, and from the gradient of probabilities to that of scores, in place.
EMO_SIMD void softmax_backward_rows(int64_t rows, int64_t keys, int64_t visible, float scale,
                                    const float* logsumexp, int64_t logsumexp_stride,
                                    const float* delta, float* scores, float* d_scores) {
  for (int64_t i = 0; i < rows; ++i) {
    float* p = scores + i * keys;
    float* ds = d_scores + i * keys;
    const int64_t seen = visible + i;
    const float lse = logsumexp[i * logsumexp_stride];
    for (int64_t j = 0; j < seen; ++j) {
      p[j] = fast_exp(p[j] - lse);
      ds[j] = p[j] * (ds[j] - delta[i]) * scale;
    }
    std::fill(p + seen, p + keys, 0.0f);
    std::fill(ds + seen, ds + keys, 0.0f);
  }
}

// delta[i] = out_i . d_out_i, the inner product that the softmax's gradient needs.
EMO_SIMD void row_products(int64_t rows, int64_t width, ConstMatrixView out, ConstMatrixView d_out,
                           float* delta) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* a = out.data + i * out.stride;
    const float* b = d_out.data + i * d_out.stride;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < width; ++d) sum += a[d] * b[d];
    delta[i] = sum;
  }
}

EMO_SIMD void widen_rows(int64_t rows, int64_t width, ConstBf16MatrixView from, MatrixView to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < width; ++d) {
      to.data[i * to.stride + d] = widen(from.data[i * from.stride + d]);
    }
  }
}

EMO_SIMD void narrow_rows(int64_t rows, int64_t width, ConstMatrixView from, Bf16MatrixView to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < width; ++d) {
      to.data[i * to.stride + d] = narrow<Bf16>(from.data[i * from.stride + d]);
    }
  }
}

// Stored matrices of one head in fp32: where they lie, or in memory that is taken piece by piece.
template <typename E>
class InFp32 {
 public:
  InFp32(int64_t rows, int64_t width, float* memory) : rows_(rows), width_(width), next_(memory) {}

  // What `matrices` of them need.
  static int64_t floats(int64_t matrices, int64_t rows, int64_t width) {
    return std::is_same_v<E, float> ? 0 : matrices * rows * width;
  }

  ConstMatrixView read(const E* data, int64_t stride) {
    if constexpr (std::is_same_v<E, float>) {
      return {data, stride};
    } else {
      const MatrixView copy = take();
      widen_rows(rows_, width_, {data, stride}, copy);
      return copy;
    }
  }
  // To be written, and then stored.
  MatrixView write(E* data, int64_t stride) {
    if constexpr (std::is_same_v<E, float>) {
      return {data, stride};
    } else {
      return take();
    }
  }
  void store(ConstMatrixView written, E* data, int64_t stride) const {
    if constexpr (!std::is_same_v<E, float>) narrow_rows(rows_, width_, written, {data, stride});
  }

 private:
  MatrixView take() { return {std::exchange(next_, next_ + rows_ * width_), width_}; }
  int64_t rows_, width_;
  float* next_;
};

ConstMatrixView from_row(ConstMatrixView matrix, int64_t row) {
  return {matrix.data + row * matrix.stride, matrix.stride};
}
MatrixView from_row(MatrixView matrix, int64_t row) {
  return {matrix.data + row * matrix.stride, matrix.stride};
}

template <typename E>
void attend(const AttentionShape& shape, const Task& task, const E* qkv, E* out, float* logsumexp,
            Scratch* scratch) {
  const int64_t W = shape.head_dim;
  const E* of_head = qkv + task.begin * task.stride + task.head_offset;
  E* out_of_head = out + task.begin * task.D + task.head_offset;
  InFp32<E> stored(task.length, W, scratch->get(1, InFp32<E>::floats(4, task.length, W)));
  const ConstMatrixView q = stored.read(of_head, task.stride);
  const ConstMatrixView k = stored.read(of_head + task.D, task.stride);
  const ConstMatrixView v = stored.read(of_head + 2 * task.D, task.stride);
  const MatrixView attended = stored.write(out_of_head, task.D);
  for (int64_t first = 0; first < task.length; first += kQueries) {
    const int64_t rows = std::min(kQueries, task.length - first);
    const int64_t keys = first + rows;
    float* scores = scratch->get(0, kQueries * keys);
    linear(rows, keys, W, from_row(q, first), k, 0, {scores, keys}, task.scale);
    const int64_t t = task.begin + first;
    softmax_rows(rows, keys, first + 1, scores, logsumexp + t * shape.heads + task.head_offset / W,
                 shape.heads);
    linear_input_gradient(rows, keys, W, {scores, keys}, v, 0, from_row(attended, first));
  }
  stored.store(attended, out_of_head, task.D);
}

template <typename E>
void attend_backward(const AttentionShape& shape, const Task& task, const E* qkv, const E* out,
                     const float* logsumexp, const E* d_out, E* d_qkv, Scratch* scratch) {
  const int64_t W = shape.head_dim;
  const E* of_head = qkv + task.begin * task.stride + task.head_offset;
  E* d_of_head = d_qkv + task.begin * task.stride + task.head_offset;
  const int64_t out_offset = task.begin * task.D + task.head_offset;
  InFp32<E> stored(task.length, W, scratch->get(3, InFp32<E>::floats(8, task.length, W)));
  const ConstMatrixView q = stored.read(of_head, task.stride);
  const ConstMatrixView k = stored.read(of_head + task.D, task.stride);
  const ConstMatrixView v = stored.read(of_head + 2 * task.D, task.stride);
  const ConstMatrixView attended = stored.read(out + out_offset, task.D);
  const ConstMatrixView d_attended = stored.read(d_out + out_offset, task.D);
  const MatrixView dq = stored.write(d_of_head, task.stride);
  const MatrixView dk = stored.write(d_of_head + task.D, task.stride);
  const MatrixView dv = stored.write(d_of_head + 2 * task.D, task.stride);
  // From the last queries, which see all keys and so write every row of dk and dv, to the first,
  // which add to theirs.
  const int64_t blocks = (task.length + kQueries - 1) / kQueries;
  for (int64_t block = blocks - 1; block >= 0; --block) {
    const int64_t first = block * kQueries;
    const int64_t rows = std::min(kQueries, task.length - first);
    const int64_t keys = first + rows;
    const float beta = block == blocks - 1 ? 0.0f : 1.0f;
    float* p = scratch->get(0, kQueries * keys);
    float* ds = scratch->get(1, kQueries * keys);
    float* delta = scratch->get(2, kQueries);
    const int64_t t = task.begin + first;
    const ConstMatrixView q_rows = from_row(q, first);
    const ConstMatrixView d_rows = from_row(d_attended, first);
    linear(rows, keys, W, q_rows, k, 0, {p, keys}, task.scale);
    linear(rows, keys, W, d_rows, v, 0, {ds, keys});
    row_products(rows, W, from_row(attended, first), d_rows, delta);
    softmax_backward_rows(rows, keys, first + 1, task.scale,
                          logsumexp + t * shape.heads + task.head_offset / W, shape.heads, delta, p,
                          ds);
    linear_weight_gradient(rows, keys, W, {p, keys}, d_rows, beta, dv);
    linear_weight_gradient(rows, keys, W, {ds, keys}, q_rows, beta, dk);
    linear_input_gradient(rows, keys, W, {ds, keys}, k, 0, from_row(dq, first));
  }
  stored.store(dq, d_of_head, task.stride);
  stored.store(dk, d_of_head + task.D, task.stride);
  stored.store(dv, d_of_head + 2 * task.D, task.stride);
}

}  // namespace

template <typename E>
void attention(const AttentionShape& shape, const E* qkv, E* out, float* logsumexp,
               Scratch* scratch) {
  parallel_tasks(shape.spans * shape.heads, [&](int64_t i) {
    attend(shape, task_at(shape, i), qkv, out, logsumexp, scratch);
  });
}

template <typename E>
void attention_backward(const AttentionShape& shape, const E* qkv, const E* out,
                        const float* logsumexp, const E* d_out, E* d_qkv, Scratch* scratch) {
  parallel_tasks(shape.spans * shape.heads, [&](int64_t i) {
    attend_backward(shape, task_at(shape, i), qkv, out, logsumexp, d_out, d_qkv, scratch);
  });
}

template void attention(const AttentionShape&, const float*, float*, float*, Scratch*);
template void attention(const AttentionShape&, const Bf16*, Bf16*, float*, Scratch*);
template void attention_backward(const AttentionShape&, const float*, const float*, const float*,
                                 const float*, float*, Scratch*);
template void attention_backward(const AttentionShape&, const Bf16*, const Bf16*, const float*,
                                 const Bf16*, Bf16*, Scratch*);

}  // namespace emo
