// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, as torch.optim.AdamW) and gradient clipping,
// as passes over flat buffers.
#pragma once

#include <cstdint>

#include "model/parameters.h"
#include "parallel/mesh.h"

namespace emo {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // of all parameters but the embedding (emo-facts 3.2)
};

struct OptimizerState {
  int64_t step = 0;        // updates done
  FlatBuffers exp_avg;     // first moment
  FlatBuffers exp_avg_sq;  // second moment
};
OptimizerState make_optimizer_state(const ParameterLayout& layout);

// Collective over ep. The Euclidean norm of all gradients, each counted once, whatever the layout:
// replicas are equal after reduce_gradients, and routed experts are added up over ep.
double gradient_norm(const Mesh& mesh, const FlatBuffers& gradients);

// min(1, limit / (norm + 1e-6)); 1 where limit is 0.
double clip_factor(double norm, double limit);

// One update with gradients scaled by `gradient_scale`. Local.
void adamw_step(const ParameterLayout& layout, const AdamWOptions& options, double learning_rate,
                double gradient_scale, const FlatBuffers& gradients, const FlatBuffers& parameters,
                OptimizerState* state);

}  // namespace emo
