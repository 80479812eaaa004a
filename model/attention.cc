#include "model/attention.h"

#include <algorithm>
#include <cmath>

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
EMO_SIMD void row_products(int64_t rows, int64_t width, int64_t stride, const float* out,
                           const float* d_out, float* delta) {
  for (int64_t i = 0; i < rows; ++i) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < width; ++d) sum += out[i * stride + d] * d_out[i * stride + d];
    delta[i] = sum;
  }
}

void attend(const AttentionShape& shape, const Task& task, const float* qkv, float* out,
            float* logsumexp, Scratch* scratch) {
  const int64_t W = shape.head_dim;
  const float* q = qkv + task.begin * task.stride + task.head_offset;
  const float* k = q + task.D;
  const float* v = k + task.D;
  for (int64_t first = 0; first < task.length; first += kQueries) {
    const int64_t rows = std::min(kQueries, task.length - first);
    const int64_t keys = first + rows;
    float* scores = scratch->get(0, kQueries * keys);
    linear(rows, keys, W, {q + first * task.stride, task.stride}, {k, task.stride}, 0,
           {scores, keys}, task.scale);
    const int64_t t = task.begin + first;
    softmax_rows(rows, keys, first + 1, scores, logsumexp + t * shape.heads + task.head_offset / W,
                 shape.heads);
    linear_input_gradient(rows, keys, W, {scores, keys}, {v, task.stride}, 0,
                          {out + t * task.D + task.head_offset, task.D});
  }
}

void attend_backward(const AttentionShape& shape, const Task& task, const float* qkv,
                     const float* out, const float* logsumexp, const float* d_out, float* d_qkv,
                     Scratch* scratch) {
  const int64_t W = shape.head_dim;
  const int64_t offset = task.begin * task.stride + task.head_offset;
  const float* q = qkv + offset;
  const float* k = q + task.D;
  const float* v = k + task.D;
  float* dq = d_qkv + offset;
  float* dk = dq + task.D;
  float* dv = dk + task.D;
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
    const ConstMatrixView q_rows(q + first * task.stride, task.stride);
    const ConstMatrixView d_rows(d_out + t * task.D + task.head_offset, task.D);
    linear(rows, keys, W, q_rows, {k, task.stride}, 0, {p, keys}, task.scale);
    linear(rows, keys, W, d_rows, {v, task.stride}, 0, {ds, keys});
    row_products(rows, W, task.D, out + t * task.D + task.head_offset, d_rows.data, delta);
    softmax_backward_rows(rows, keys, first + 1, task.scale,
                          logsumexp + t * shape.heads + task.head_offset / W, shape.heads, delta, p,
                          ds);
    linear_weight_gradient(rows, keys, W, {p, keys}, d_rows, beta, {dv, task.stride});
    linear_weight_gradient(rows, keys, W, {ds, keys}, q_rows, beta, {dk, task.stride});
    linear_input_gradient(rows, keys, W, {ds, keys}, {k, task.stride}, 0,
                          {dq + first * task.stride, task.stride});
  }
}

}  // namespace

void attention(const AttentionShape& shape, const float* qkv, float* out, float* logsumexp,
               Scratch* scratch) {
  parallel_tasks(shape.spans * shape.heads, [&](int64_t i) {
    attend(shape, task_at(shape, i), qkv, out, logsumexp, scratch);
  });
}

void attention_backward(const AttentionShape& shape, const float* qkv, const float* out,
                        const float* logsumexp, const float* d_out, float* d_qkv,
                        Scratch* scratch) {
  parallel_tasks(shape.spans * shape.heads, [&](int64_t i) {
    attend_backward(shape, task_at(shape, i), qkv, out, logsumexp, d_out, d_qkv, scratch);
  });
}

}  // namespace emo
