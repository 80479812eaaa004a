// The balance loss and the step's sums on the device (model/losses.h).
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// gradient f32 [E]: (E / K) (C_e / T_c) / divisor from counts i64 [E] and tokens i64 [1], T_c; 0
// where that is 0.
void score_gradient(const at::Tensor& counts, const at::Tensor& tokens, int64_t top_k,
                    double divisor, const at::Tensor& gradient);

// gradient f32 [N, E] of documents: (P_d / K) (C_de / n_d) / n_d / divisor from counts i32 [N, E]
// and the sizes of pools i32 [N] (undefined: E); 0 where n_d, a K-th of the counts, is 0.
void document_score_gradient(const at::Tensor& counts, const at::Tensor& pool_sizes, int64_t top_k,
                             double divisor, const at::Tensor& gradient);

// What one layer's router adds to the sums of a step.
struct LayerSums {
  at::Tensor gradient;          // f32 [E] of score_gradient, or [N, E] of document_score_gradient
  at::Tensor score_sum;         // f64, of the gradient's shape
  at::Tensor counts;            // i64 [E]
  at::Tensor logsumexp;         // f32 [T] of the logits that the z loss sees
  at::Tensor labels;            // i32 [T] the z loss is of those not negative; undefined: of all
  at::Tensor token_entropy;     // f32 [T]
  at::Tensor document_entropy;  // f64 [N]; undefined without pools
  at::Tensor pool_sizes;        // i32 [N]; likewise
};

// Adds them to `sums` f64 [7 + E], a RouterSums in the order of its fields.
void add_layer_sums(const LayerSums& layer, const at::Tensor& sums);

// Adds to sums f64 [3] (cross-entropy, squares of logsumexp, labels) what the head's rows say:
// losses and z_squares f32 [T], labels i32 [T].
void add_head_sums(const at::Tensor& losses, const at::Tensor& z_squares, const at::Tensor& labels,
                   const at::Tensor& sums);

}  // namespace emo::device
