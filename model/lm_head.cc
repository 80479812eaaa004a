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

constexpr int64_t kChunk = 256;  // rows whose logits are in memory at once

// logsumexp of each row, and the largest logit.
EMO_SIMD void logsumexp_rows(int64_t begin, int64_t end, int64_t V, const float* logits,
                             float* logsumexp) {
  for (int64_t i = begin; i < end; ++i) {
    const float* row = logits + i * V;
    float largest = row[0];
#pragma omp simd reduction(max : largest)
    for (int64_t v = 0; v < V; ++v) largest = std::max(largest, row[v]);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < V; ++v) sum += fast_exp(row[v] - largest);
    logsumexp[i] = largest + std::log(sum);
  }
}

// Logits become their gradients: scale * ((1 + 2 z_weight logsumexp) softmax - one_hot(label)).
EMO_SIMD void gradient_rows(int64_t begin, int64_t end, int64_t V, const int32_t* labels,
                            const float* logsumexp, float scale, float z_weight, float* logits) {
  for (int64_t i = begin; i < end; ++i) {
    float* row = logits + i * V;
    if (labels[i] < 0) {
      std::fill_n(row, V, 0.0f);
      continue;
    }
    const float lse = logsumexp[i];
    const float factor = scale * (1 + 2 * z_weight * lse);
    for (int64_t v = 0; v < V; ++v) row[v] = factor * fast_exp(row[v] - lse);
    row[labels[i]] -= scale;
  }
}

// Calls f(first, rows, logits, logsumexp) for each chunk of rows, after summing up the loss.
template <typename F>
LmLoss for_chunks(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
                  Scratch* scratch, const F& f) {
  LmLoss loss;
  std::vector<float> logsumexp(kChunk);
  for (int64_t first = 0; first < T; first += kChunk) {
    const int64_t rows = std::min(kChunk, T - first);
    float* logits = scratch->get(0, kChunk * head.V);
    linear(rows, head.V, head.D, {x + first * head.D, head.D}, {head.w, head.D}, 0,
           {logits, head.V});
    parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
      logsumexp_rows(begin, end, head.V, logits, logsumexp.data());
    });
    for (int64_t i = 0; i < rows; ++i) {
      const int32_t label = labels[first + i];
      if (label < 0) continue;
      loss.cross_entropy += logsumexp[i] - logits[i * head.V + label];
      loss.z_squares += static_cast<double>(logsumexp[i]) * logsumexp[i];
      ++loss.labels;
    }
    f(first, rows, logits, logsumexp.data());
  }
  return loss;
}

}  // namespace

LmLoss lm_loss(const LmHeadWeights& head, int64_t T, const float* x, const int32_t* labels,
               float* all_logits, float* token_loss, Scratch* scratch) {
  return for_chunks(head, T, x, labels, scratch,
                    [&](int64_t first, int64_t rows, const float* logits, const float* logsumexp) {
    if (all_logits != nullptr) {
      std::memcpy(all_logits + first * head.V, logits, rows * head.V * sizeof(float));
    }
    if (token_loss == nullptr) return;
    for (int64_t i = 0; i < rows; ++i) {
      const int32_t label = labels[first + i];
      token_loss[first + i] = label < 0 ? 0.0f : logsumexp[i] - logits[i * head.V + label];
    }
  });
}

LmLoss lm_loss_and_gradients(const LmHeadWeights& head, const LmHeadWeights& d_head, int64_t T,
                             const float* x, const int32_t* labels, float scale, float z_weight,
                             float* dx, Scratch* scratch) {
  const int64_t D = head.D;
  return for_chunks(head, T, x, labels, scratch,
                    [&](int64_t first, int64_t rows, float* logits, const float* logsumexp) {
    parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
      gradient_rows(begin, end, head.V, labels + first, logsumexp, scale, z_weight, logits);
    });
    linear_input_gradient(rows, head.V, D, {logits, head.V}, {head.w, D}, 0, {dx + first * D, D});
    linear_weight_gradient(rows, head.V, D, {logits, head.V}, {x + first * D, D}, 1, {d_head.w, D});
  });
}

}  // namespace emo
