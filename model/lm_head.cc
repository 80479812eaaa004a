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

// Rows whose logits are in memory at once: as many as fit into a second-level cache.
int64_t rows_at_once(int64_t V) { return std::clamp<int64_t>((1 << 18) / V, 16, 256); }

// logsumexp of each row; with `keep_exponentials`, logits become exp(logit - logsumexp).
EMO_SIMD void logsumexp_rows(int64_t begin, int64_t end, int64_t V, bool keep_exponentials,
                             float* logits, float* logsumexp) {
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
      const float inverse = 1.0f / sum;
      for (int64_t v = 0; v < V; ++v) row[v] *= inverse;
    }
    logsumexp[i] = largest + std::log(sum);
  }
}

// Probabilities become the logits' gradients: scale * ((1 + 2 z_weight logsumexp) p -
// one_hot(label)).
EMO_SIMD void gradient_rows(int64_t begin, int64_t end, int64_t V, const int32_t* labels,
                            const float* logsumexp, float scale, float z_weight, float* p) {
  for (int64_t i = begin; i < end; ++i) {
    float* row = p + i * V;
    const float factor = labels[i] < 0 ? 0 : scale * (1 + 2 * z_weight * logsumexp[i]);
    for (int64_t v = 0; v < V; ++v) row[v] *= factor;
    if (labels[i] >= 0) row[labels[i]] -= scale;
  }
}

// Calls f(first, rows, logits, logsumexp, label_logits) for each chunk of rows, after summing up
// the loss; logits are probabilities where `probabilities` is set.
template <typename F>
LmLoss for_chunks(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
                  bool probabilities, Scratch* scratch, const F& f) {
  LmLoss loss;
  const int64_t chunk = rows_at_once(head.V);
  std::vector<float> logsumexp(chunk), label_logits(chunk);
  for (int64_t first = 0; first < T; first += chunk) {
    const int64_t rows = std::min(chunk, T - first);
    float* logits = scratch->get(0, chunk * head.V);
    linear(rows, head.V, head.D, {x + first * head.D, head.D}, {head.w, head.D}, 0,
           {logits, head.V});
    for (int64_t i = 0; i < rows; ++i) {
      label_logits[i] = logits[i * head.V + std::max(labels[first + i], 0)];
    }
    parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
      logsumexp_rows(begin, end, head.V, probabilities, logits, logsumexp.data());
    });
    for (int64_t i = 0; i < rows; ++i) {
      if (labels[first + i] < 0) continue;
      loss.cross_entropy += logsumexp[i] - label_logits[i];
      loss.z_squares += static_cast<double>(logsumexp[i]) * logsumexp[i];
      ++loss.labels;
    }
    f(first, rows, logits, logsumexp.data(), label_logits.data());
  }
  return loss;
}

}  // namespace

LmLoss lm_loss(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
               float* all_logits, float* token_loss, Scratch* scratch) {
  return for_chunks(
      head, T, x, labels, /*probabilities=*/false, scratch,
      [&](int64_t first, int64_t rows, const float* logits, const float* logsumexp,
          const float* label_logits) {
        if (all_logits != nullptr) {
          std::memcpy(all_logits + first * head.V, logits, rows * head.V * sizeof(float));
        }
        if (token_loss == nullptr) return;
        for (int64_t i = 0; i < rows; ++i) {
          token_loss[first + i] = labels[first + i] < 0 ? 0.0f : logsumexp[i] - label_logits[i];
        }
      });
}

LmLoss lm_loss_and_gradients(const LmHeadWeights& head, const LmHeadWeights& d_head, int64_t T,
                             const float* x, const int32_t* labels, float scale, float z_weight,
                             float* dx, Scratch* scratch) {
  const int64_t D = head.D;
  return for_chunks(
      head, T, x, labels, /*probabilities=*/true, scratch,
      [&](int64_t first, int64_t rows, float* logits, const float* logsumexp, const float*) {
        parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
          gradient_rows(begin, end, head.V, labels + first, logsumexp, scale, z_weight, logits);
        });
        linear_input_gradient(rows, head.V, D, {logits, head.V}, {head.w, D}, 0,
                              {dx + first * D, D});
        linear_weight_gradient(rows, head.V, D, {logits, head.V}, {x + first * D, D}, 1,
                               {d_head.w, D});
      });
}

}  // namespace emo
