#include "model/host/lm_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "model/host/linear.h"
#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// Rows whose logits are in memory at once: enough for the head's matrix to be read few times, and
// few enough to stay in a last-level cache where the vocabulary allows.
int64_t rows_at_once(int64_t V) { return std::clamp<int64_t>((1 << 22) / V, 256, 1024); }

// Of each row of logits [V], `stride` apart: the largest and the sum of exponentials of the
// distance to it. The exponentials go to `exponentials`, which may be the logits' own memory; null:
// nowhere.
template <typename Stored>
EMO_SIMD void exponentiate_rows(int64_t begin, int64_t end, int64_t V, int64_t stride,
                                const float* logits, Stored* exponentials, float* largest_of_row,
                                float* sum_of_row) {
  for (int64_t i = begin; i < end; ++i) {
    const float* row = logits + i * stride;
    float largest = row[0];
#pragma omp simd reduction(max : largest)
    for (int64_t v = 0; v < V; ++v) largest = larger(largest, row[v]);
    float sum = 0;
    if (exponentials == nullptr) {
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < V; ++v) sum += fast_exp(row[v] - largest);
    } else {
      Stored* to = exponentials + i * stride;
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < V; ++v) {
        const float exponential = fast_exp(row[v] - largest);
        to[v] = narrow<Stored>(exponential);
        sum += exponential;
      }
    }
    largest_of_row[i] = largest;
    sum_of_row[i] = sum;
  }
}

// The logits of one chunk of rows.
template <typename Stored>
struct Chunk {
  int64_t first, rows;
  int64_t stride;        // of the next two, at least V
  float* logits;         // [rows, V]
  Stored* exponentials;  // [rows, V], where kept; of float in the place of the logits
  std::vector<float> label_logits;
  std::vector<float> sums;  // of each row's exponentials
  std::vector<float> logsumexp;
};

template <typename Stored>
Stored* place_of_exponentials(float* logits, int64_t count, Scratch* scratch) {
  if constexpr (std::is_same_v<Stored, float>) {
    return logits;
  } else {
    return scratch->get<Stored>(2, count);
  }
}

// Calls f(chunk) for each chunk of rows, after adding up its loss.
template <typename Stored, typename F>
LmLoss for_chunks(const LmHeadWeights& head, int64_t T, const Stored* x, const int32_t* labels,
                  bool keep_exponentials, Scratch* scratch, const F& f) {
  LmLoss loss;
  const int64_t most = std::min(T, rows_at_once(head.V));
  const int64_t stride = padded_stride(head.V);
  float* logits = scratch->get(0, most * stride);
  Chunk<Stored> chunk{
      0,
      0,
      stride,
      logits,
      keep_exponentials ? place_of_exponentials<Stored>(logits, most * stride, scratch) : nullptr,
      std::vector<float>(most),
      std::vector<float>(most),
      std::vector<float>(most)};
  for (; chunk.first < T; chunk.first += most) {
    chunk.rows = std::min(most, T - chunk.first);
    linear(chunk.rows, head.V, head.D, {x + chunk.first * head.D, head.D}, {head.w, head.D}, 0,
           {chunk.logits, stride});
    for (int64_t i = 0; i < chunk.rows; ++i) {
      chunk.label_logits[i] = chunk.logits[i * stride + std::max(labels[chunk.first + i], 0)];
    }
    parallel_for(chunk.rows, 8, [&](int64_t begin, int64_t end) {
      vectorised<exponentiate_rows<Stored>>(begin, end, head.V, stride, chunk.logits,
                                            chunk.exponentials, chunk.logsumexp.data(),
                                            chunk.sums.data());
    });
    for (int64_t i = 0; i < chunk.rows; ++i) {
      chunk.logsumexp[i] += std::log(chunk.sums[i]);
      if (labels[chunk.first + i] < 0) continue;
      loss.cross_entropy += chunk.logsumexp[i] - chunk.label_logits[i];
      loss.z_squares += static_cast<double>(chunk.logsumexp[i]) * chunk.logsumexp[i];
      ++loss.labels;
    }
    f(chunk);
  }
  return loss;
}

// to[i] = factors[i] * from[i], for rows of D.
template <typename Stored>
void scale_rows(int64_t rows, int64_t D, const std::vector<float>& factors, const Stored* from,
                Stored* to) {
  parallel_for(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t d = 0; d < D; ++d) {
        to[i * D + d] = narrow<Stored>(factors[i] * widen(from[i * D + d]));
      }
    }
  });
}

// The part of the gradients that comes from each row's own label:
//   dx_i -= scale * w_label, dw_label -= scale * x_i
void subtract_labels(const LmHeadWeights& head, const LmHeadWeights& d_head, int64_t rows,
                     const int32_t* labels, float scale, const float* x, float* dx) {
  const int64_t D = head.D;
  // Columns are split between threads, not rows: rows may have the same label.
  parallel_for(D, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < rows; ++i) {
      if (labels[i] < 0) continue;
      const float* w = head.w + labels[i] * D;
      float* dw = d_head.w + labels[i] * D;
      for (int64_t d = begin; d < end; ++d) {
        dx[i * D + d] -= scale * w[d];
        dw[d] -= scale * x[i * D + d];
      }
    }
  });
}

// The same part with bf16: as a change of the label's exponential, which becomes
// sum * (p - 1 / (1 + 2 z_weight logsumexp)) before it is rounded. Where the model is sure of the
// label p is near 1, and the gradient is a small difference that rounded exponentials do not hold.
void add_labels(const Chunk<Bf16>& chunk, const int32_t* labels, float z_weight) {
  for (int64_t i = 0; i < chunk.rows; ++i) {
    if (labels[i] < 0) continue;
    const float p = std::exp(chunk.label_logits[i] - chunk.logsumexp[i]);
    const float wanted = 1 / (1 + 2 * z_weight * chunk.logsumexp[i]);
    chunk.exponentials[i * chunk.stride + labels[i]] = narrow<Bf16>(chunk.sums[i] * (p - wanted));
  }
}

}  // namespace

LmLoss lm_loss(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
               float* all_logits, float* token_loss, Scratch* scratch) {
  return for_chunks(
      head, T, x, labels, /*keep_exponentials=*/false, scratch, [&](const Chunk<float>& chunk) {
        if (all_logits != nullptr) {
          for (int64_t i = 0; i < chunk.rows; ++i) {
            std::memcpy(all_logits + (chunk.first + i) * head.V, chunk.logits + i * chunk.stride,
                        head.V * sizeof(float));
          }
        }
        if (token_loss == nullptr) return;
        for (int64_t i = 0; i < chunk.rows; ++i) {
          const int64_t t = chunk.first + i;
          token_loss[t] = labels[t] < 0 ? 0.0f : chunk.logsumexp[i] - chunk.label_logits[i];
        }
      });
}

template <typename Stored>
LmLoss lm_loss_and_gradients(const LmHeadWeights& head, const LmHeadWeights& d_head, int64_t T,
                             const Stored* x, const int32_t* labels, float scale, float z_weight,
                             float* dx, Scratch* scratch) {
  const int64_t D = head.D;
  const int64_t V = head.V;
  std::vector<float> factors;
  return for_chunks(
      head, T, x, labels, /*keep_exponentials=*/true, scratch, [&](const Chunk<Stored>& chunk) {
        // The logits' gradient is diag(factors) * exponentials, less the labels' part: factors go
        // onto the rows of x and dx, which are shorter.
        factors.resize(chunk.rows);
        for (int64_t i = 0; i < chunk.rows; ++i) {
          factors[i] = labels[chunk.first + i] < 0
                           ? 0.0f
                           : scale * (1 + 2 * z_weight * chunk.logsumexp[i]) / chunk.sums[i];
        }
        if constexpr (std::is_same_v<Stored, Bf16>) {
          add_labels(chunk, labels + chunk.first, z_weight);
        }
        const Stored* x_rows = x + chunk.first * D;
        float* dx_rows = dx + chunk.first * D;
        Stored* scaled = scratch->get<Stored>(1, chunk.rows * D);
        scale_rows(chunk.rows, D, factors, x_rows, scaled);
        const BasicConstMatrixView<Stored> exponentials(chunk.exponentials, chunk.stride);
        linear_weight_gradient(chunk.rows, V, D, exponentials, {scaled, D}, 1, {d_head.w, D});
        linear_input_gradient(chunk.rows, V, D, exponentials, {head.w, D}, 0,
                              MatrixView{dx_rows, D});
        scale_rows<float>(chunk.rows, D, factors, dx_rows, dx_rows);
        if constexpr (std::is_same_v<Stored, float>) {
          subtract_labels(head, d_head, chunk.rows, labels + chunk.first, scale, x_rows, dx_rows);
        }
      });
}
template LmLoss lm_loss_and_gradients(const LmHeadWeights&, const LmHeadWeights&, int64_t,
                                      const float*, const int32_t*, float, float, float*, Scratch*);
template LmLoss lm_loss_and_gradients(const LmHeadWeights&, const LmHeadWeights&, int64_t,
                                      const Bf16*, const int32_t*, float, float, float*, Scratch*);

}  // namespace emo
