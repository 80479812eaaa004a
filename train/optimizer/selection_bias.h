// Balancing without a loss (Wang et al. 2024, arXiv 2408.15664): each routed expert has a bias that
// is added to its score where experts are chosen, and nowhere else. After each step it moves by
// routing.bias_rate towards the experts that too few tokens chose:
//   b_e += rate * sign(mean over e of C_e - C_e)
// C_e: tokens, of those that the losses are of, that chose e, over the whole step on all ranks. It
// has no gradient and no decay.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/transformer.h"
#include "train/optimizer/optimizer.h"

namespace emo {

// What moves the biases of a step.
struct BiasUpdate {
  double rate = 0;
  at::Tensor control;  // Backend::clip_control(): nothing moves where it forbids the update
};

// Local. Moves what this rank owns of a layer's biases, and its masters where it has them; counts
// f64 [E], where the model computes.
void update_selection_bias(int64_t layer, const at::Tensor& counts, const BiasUpdate& update,
                           Model* model, OptimizerState* state);

}  // namespace emo
