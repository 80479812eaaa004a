#include "model/host/attention.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "model/host/linear.h"
#include "model/host/simd.h"
#include "model/host/transpose.h"
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

// Keys or values [count, width] that several blocks of queries are multiplied with. fp32 ones are
// turned over once, where queries are enough to be worth it: small products by rows are faster than
// by columns. bf16 ones are packed in any case.
template <typename Stored>
class SharedFactor {
 public:
  static int64_t memory_size(int64_t queries, int64_t count, int64_t width) {
    constexpr int64_t kFewestQueries = 32;
    return std::is_same_v<Stored, float> && queries >= kFewestQueries ? width * padded_stride(count)
                                                                      : 0;
  }
  // `memory` of that size; null where it is 0.
  SharedFactor(int64_t count, int64_t width, BasicConstMatrixView<Stored> rows, float* memory)
      : width_(width), stride_(padded_stride(count)), rows_(rows), turned_(memory) {
    if constexpr (std::is_same_v<Stored, float>) {
      if (turned_ != nullptr) transpose(count, width, rows, {turned_, stride_});
    }
  }
  // y[n, count] = x[n, width] rows[0, count)^T
  void multiply(int64_t n, int64_t count, BasicConstMatrixView<Stored> x, MatrixView y) const {
    if constexpr (std::is_same_v<Stored, float>) {
      if (turned_ != nullptr) {
        return linear_input_gradient(n, width_, count, x, ConstMatrixView(turned_, stride_), 0, y);
      }
    }
    linear(n, count, width_, x, rows_, 0, y);
  }

 private:
  int64_t width_, stride_;
  BasicConstMatrixView<Stored> rows_;
  float* turned_;
};

// Causal softmax of `rows` rows of scores [rows, keys], which are overwritten, into p, which may be
// the same memory; row i sees keys [0, visible + i). Scores are first multiplied by `scale`.
template <typename Stored>
EMO_SIMD void softmax_rows(int64_t rows, int64_t keys, int64_t visible, float scale, float* scores,
                           Stored* p, float* logsumexp, int64_t logsumexp_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = scores + i * keys;
    Stored* to = p + i * keys;
    const int64_t seen = visible + i;
    float largest = row[0] * scale;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < seen; ++j) largest = larger(largest, row[j] * scale);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < seen; ++j) {
      row[j] = fast_exp(row[j] * scale - largest);
      sum += row[j];
    }
    const float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < seen; ++j) to[j] = narrow<Stored>(row[j] * inverse);
    std::fill(to + seen, to + keys, narrow<Stored>(0));
    logsumexp[i * logsumexp_stride] = largest + std::log(sum);
  }
}

// From scores to the probabilities p of their multiples by `scale`, and from the gradient of
// probabilities to ds, that of the scores; p and ds may be the memory that they come from.
template <typename Stored>
EMO_SIMD void softmax_backward_rows(int64_t rows, int64_t keys, int64_t visible, float scale,
                                    const float* logsumexp, int64_t logsumexp_stride,
                                    const float* delta, const float* scores,
                                    const float* d_probabilities, Stored* p, Stored* ds) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* score = scores + i * keys;
    const float* dp = d_probabilities + i * keys;
    Stored* p_row = p + i * keys;
    Stored* ds_row = ds + i * keys;
    const int64_t seen = visible + i;
    const float lse = logsumexp[i * logsumexp_stride];
#pragma omp simd
    for (int64_t j = 0; j < seen; ++j) {
      const float probability = fast_exp(score[j] * scale - lse);
      ds_row[j] = narrow<Stored>(probability * (dp[j] - delta[i]) * scale);
      p_row[j] = narrow<Stored>(probability);
    }
    std::fill(p_row + seen, p_row + keys, narrow<Stored>(0));
    std::fill(ds_row + seen, ds_row + keys, narrow<Stored>(0));
  }
}

// delta[i] = out_i . d_out_i, the inner product that the softmax's gradient needs.
template <typename Stored>
EMO_SIMD void row_products(int64_t rows, int64_t width, int64_t stride, const Stored* out,
                           const Stored* d_out, float* delta) {
  for (int64_t i = 0; i < rows; ++i) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < width; ++d) {
      sum += widen(out[i * stride + d]) * widen(d_out[i * stride + d]);
    }
    delta[i] = sum;
  }
}

EMO_SIMD void narrow_rows(int64_t rows, int64_t width, ConstMatrixView from, Bf16MatrixView to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < width; ++d) {
      to.data[i * to.stride + d] = narrow<Bf16>(from.data[i * from.stride + d]);
    }
  }
}

// A block of fp32 scores and the same entries as factors of products: of fp32 the same memory.
template <typename Stored>
struct Scores {
  float* values;
  Stored* factors;
  Scores(Scratch* scratch, int slot, int64_t count)
      : values(scratch->get(slot, std::is_same_v<Stored, float> ? count : count + (count + 1) / 2)),
        factors(
            reinterpret_cast<Stored*>(std::is_same_v<Stored, float> ? values : values + count)) {}
};

// A sum over blocks of queries, [rows, width] of a head: of fp32 where it is stored, else in
// `memory` until all are added.
template <typename Stored>
struct Sum {
  Stored* stored;
  int64_t stride;
  MatrixView sum;
  Sum(Stored* data, int64_t s, int64_t width, float* memory) : stored(data), stride(s), sum{} {
    if constexpr (std::is_same_v<Stored, float>) {
      sum = {data, s};
    } else {
      sum = {memory, width};
    }
  }
  void store(int64_t rows, int64_t width) const {
    if constexpr (!std::is_same_v<Stored, float>) {
      vectorised<narrow_rows>(rows, width, ConstMatrixView(sum), Bf16MatrixView{stored, stride});
    };
  }
};

// The keys and values of a task, from its span's first token on, `earlier` of them before the
// queries.
template <typename Stored>
struct KeysValues {
  BasicConstMatrixView<Stored> k, v;
  int64_t earlier;
};
template <typename Stored>
KeysValues<Stored> keys_values(const AttentionShape& shape, const Task& task, int64_t span,
                               const Stored* qkv) {
  if constexpr (std::is_same_v<Stored, float>) {
    if (shape.cached != nullptr) {
      const CachedSpan& cached = shape.cached[span];
      const float* k = cached.keys_values + task.head_offset;
      return {{k, 2 * task.D}, {k + task.D, 2 * task.D}, cached.earlier};
    }
  }
  const Stored* k = qkv + task.begin * task.stride + task.head_offset + task.D;
  return {{k, task.stride}, {k + task.D, task.stride}, 0};
}

template <typename Stored>
void attend(const AttentionShape& shape, const Task& task, const KeysValues<Stored>& from,
            const Stored* qkv, Stored* out, float* logsumexp, Scratch* scratch) {
  const int64_t W = shape.head_dim;
  const Stored* q = qkv + task.begin * task.stride + task.head_offset;
  const int64_t all_keys = from.earlier + task.length;
  const int64_t turned = SharedFactor<Stored>::memory_size(task.length, all_keys, W);
  const SharedFactor<Stored> shared_keys(all_keys, W, from.k,
                                         turned > 0 ? scratch->get(1, turned) : nullptr);
  for (int64_t first = 0; first < task.length; first += kQueries) {
    const int64_t rows = std::min(kQueries, task.length - first);
    const int64_t keys = from.earlier + first + rows;
    const Scores<Stored> scores(scratch, 0, kQueries * keys);
    shared_keys.multiply(rows, keys, {q + first * task.stride, task.stride}, {scores.values, keys});
    const int64_t t = task.begin + first;
    vectorised<softmax_rows<Stored>>(
        rows, keys, from.earlier + first + 1, task.scale, scores.values, scores.factors,
        logsumexp + t * shape.heads + task.head_offset / W, shape.heads);
    linear_input_gradient(rows, keys, W, {scores.factors, keys}, from.v, 0,
                          {out + t * task.D + task.head_offset, task.D});
  }
}

template <typename Stored>
void attend_backward(const AttentionShape& shape, const Task& task, const Stored* qkv,
                     const Stored* out, const float* logsumexp, const Stored* d_out, Stored* d_qkv,
                     Scratch* scratch) {
  const int64_t W = shape.head_dim;
  const int64_t offset = task.begin * task.stride + task.head_offset;
  const Stored* q = qkv + offset;
  const BasicConstMatrixView<Stored> k(q + task.D, task.stride);
  const BasicConstMatrixView<Stored> v(q + 2 * task.D, task.stride);
  Stored* dq = d_qkv + offset;
  // bf16 sums need memory of their own, fp32 factors some for being turned over.
  const int64_t turned = SharedFactor<Stored>::memory_size(task.length, task.length, W);
  const int64_t summed = std::is_same_v<Stored, float> ? 0 : task.length * W;
  float* memory = scratch->get(3, 2 * (turned + summed));
  const SharedFactor<Stored> shared_keys(task.length, W, k, turned > 0 ? memory : nullptr);
  const SharedFactor<Stored> shared_values(task.length, W, v,
                                           turned > 0 ? memory + turned : nullptr);
  const Sum<Stored> dk(dq + task.D, task.stride, W, memory);
  const Sum<Stored> dv(dq + 2 * task.D, task.stride, W, memory + summed);
  // From the last queries, which see all keys and so write every row of dk and dv, to the first,
  // which add to theirs.
  const int64_t blocks = (task.length + kQueries - 1) / kQueries;
  for (int64_t block = blocks - 1; block >= 0; --block) {
    const int64_t first = block * kQueries;
    const int64_t rows = std::min(kQueries, task.length - first);
    const int64_t keys = first + rows;
    const float beta = block == blocks - 1 ? 0.0f : 1.0f;
    const Scores<Stored> p(scratch, 0, kQueries * keys);
    const Scores<Stored> ds(scratch, 1, kQueries * keys);
    float* delta = scratch->get(2, kQueries);
    const int64_t t = task.begin + first;
    const int64_t out_offset = t * task.D + task.head_offset;
    const BasicConstMatrixView<Stored> q_rows(q + first * task.stride, task.stride);
    const BasicConstMatrixView<Stored> d_rows(d_out + out_offset, task.D);
    shared_keys.multiply(rows, keys, q_rows, {p.values, keys});
    shared_values.multiply(rows, keys, d_rows, {ds.values, keys});
    vectorised<row_products<Stored>>(rows, W, task.D, out + out_offset, d_rows.data, delta);
    vectorised<softmax_backward_rows<Stored>>(
        rows, keys, first + 1, task.scale, logsumexp + t * shape.heads + task.head_offset / W,
        shape.heads, delta, p.values, ds.values, p.factors, ds.factors);
    linear_weight_gradient(rows, keys, W, {p.factors, keys}, d_rows, beta, dv.sum);
    linear_weight_gradient(rows, keys, W, {ds.factors, keys}, q_rows, beta, dk.sum);
    linear_input_gradient(rows, keys, W, {ds.factors, keys}, k, 0,
                          {dq + first * task.stride, task.stride});
  }
  dk.store(task.length, W);
  dv.store(task.length, W);
}

}  // namespace

template <typename Stored>
void attention(const AttentionShape& shape, const Stored* qkv, Stored* out, float* logsumexp,
               Scratch* scratch) {
  parallel_tasks(shape.spans * shape.heads, [&](int64_t i) {
    const Task task = task_at(shape, i);
    attend(shape, task, keys_values(shape, task, i / shape.heads, qkv), qkv, out, logsumexp,
           scratch);
  });
}

template <typename Stored>
void attention_backward(const AttentionShape& shape, const Stored* qkv, const Stored* out,
                        const float* logsumexp, const Stored* d_out, Stored* d_qkv,
                        Scratch* scratch) {
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
