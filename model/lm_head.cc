#include "model/lm_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "model/linear.h"
#include "model/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

// Rows whose logits are in memory at once: enough for the head's matrix to be read few times, and
// few enough to stay in a last-level cache where the vocabulary allows.
int64_t rows_at_once(int64_t V) { return std::clamp<int64_t>((1 << 22) / V, 256, 1024); }

// Of each row of logits: the largest and the sum of exponentials of the distance to it; with
// `keep_exponentials` these replace the logits.
EMO_SIMD void exponentiate_rows(int64_t begin, int64_t end, int64_t V, bool keep_exponentials,
                                float* logits, float* largest_of_row, float* sum_of_row) {
  for (int64_t i = begin; i < end; ++i) {
    float* row = logits + i * V;
    float largest = row[0];
#pragma omp simd reduction(max : largest)
    for (int64_t v = 0; v < V; ++v) largest = std::max(largest, row[v]);
    float sum = 0;
    if (!keep_exponentials) {
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < V; ++v) sum += fast_exp(row[v] - largest);
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < V; ++v) {
        row[v] = fast_exp(row[v] - largest);
        sum += row[v];
      }
    }
    largest_of_row[i] = largest;
    sum_of_row[i] = sum;
  }
}

// The logits of one chunk of rows, or their exponentials.
struct Chunk {
  int64_t first, rows;
  float* values;  // [rows, V]
  std::vector<float> label_logits;
  std::vector<float> sums;  // of each row's exponentials
  std::vector<float> logsumexp;
};

// Calls f(chunk) for each chunk of rows, after adding up its loss.
template <typename F>
LmLoss for_chunks(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
                  bool keep_exponentials, Scratch* scratch, const F& f) {
  LmLoss loss;
  const int64_t most = std::min(T, rows_at_once(head.V));
  Chunk chunk{0,
              0,
              scratch->get(0, most * head.V),
              std::vector<float>(most),
              std::vector<float>(most),
              std::vector<float>(most)};
  for (; chunk.first < T; chunk.first += most) {
    chunk.rows = std::min(most, T - chunk.first);
    linear(chunk.rows, head.V, head.D, {x + chunk.first * head.D, head.D}, {head.w, head.D}, 0,
           {chunk.values, head.V});
    for (int64_t i = 0; i < chunk.rows; ++i) {
      chunk.label_logits[i] = chunk.values[i * head.V + std::max(labels[chunk.first + i], 0)];
    }
    parallel_for(chunk.rows, 8, [&](int64_t begin, int64_t end) {
      exponentiate_rows(begin, end, head.V, keep_exponentials, chunk.values, chunk.logsumexp.data(),
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
void scale_rows(int64_t rows, int64_t D, const std::vector<float>& factors, const float* from,
                float* to) {
  parallel_for(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t d = 0; d < D; ++d) to[i * D + d] = factors[i] * from[i * D + d];
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

}  // namespace

LmLoss lm_loss(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
               float* all_logits, float* token_loss, Scratch* scratch) {
  return for_chunks(
      head, T, x, labels, /*keep_exponentials=*/false, scratch, [&](const Chunk& chunk) {
        if (all_logits != nullptr) {
          std::memcpy(all_logits + chunk.first * head.V, chunk.values,
                      chunk.rows * head.V * sizeof(float));
        }
        if (token_loss == nullptr) return;
        for (int64_t i = 0; i < chunk.rows; ++i) {
          const int64_t t = chunk.first + i;
          token_loss[t] = labels[t] < 0 ? 0.0f : chunk.logsumexp[i] - chunk.label_logits[i];
        }
      });
}

LmLoss lm_loss_and_gradients(const LmHeadWeights& head, const LmHeadWeights& d_head, int64_t T,
                             const float* x, const int32_t* labels, float scale, float z_weight,
                             float* dx, Scratch* scratch) {
  const int64_t D = head.D;
  const int64_t V = head.V;
  std::vector<float> factors;
  return for_chunks(
      head, T, x, labels, /*keep_exponentials=*/true, scratch, [&](const Chunk& chunk) {
        // The logits' gradient is diag(factors) * exponentials, less the labels' part: factors go
        // onto the rows of x and dx, which are shorter.
        factors.resize(chunk.rows);
        for (int64_t i = 0; i < chunk.rows; ++i) {
          factors[i] = labels[chunk.first + i] < 0
                           ? 0.0f
                           : scale * (1 + 2 * z_weight * chunk.logsumexp[i]) / chunk.sums[i];
        }
        const float* x_rows = x + chunk.first * D;
        float* dx_rows = dx + chunk.first * D;
        float* scaled = scratch->get(1, chunk.rows * D);
        scale_rows(chunk.rows, D, factors, x_rows, scaled);
        linear_weight_gradient(chunk.rows, V, D, {chunk.values, V}, {scaled, D}, 1, {d_head.w, D});
        linear_input_gradient(chunk.rows, V, D, {chunk.values, V}, {head.w, D}, 0, {dx_rows, D});
        scale_rows(chunk.rows, D, factors, dx_rows, dx_rows);
        subtract_labels(head, d_head, chunk.rows, labels + chunk.first, scale, x_rows, dx_rows);
      });
}

}  // namespace emo
