// AdamW (model/adamw.h) and gradient clipping, as passes over flat buffers.
#pragma once

#include <cstdint>
#include <functional>

#include "model/adamw.h"
#include "model/parameters.h"
#include "parallel/mesh.h"
#include "train/optimizer/trained_parts.h"

namespace emo {

// Moments of the parts of the parameters that this rank owns (parallel/sharding.h), side by side.
struct OptimizerState {
  int64_t step = 0;        // updates done
  FlatBuffers exp_avg;     // first moment
  FlatBuffers exp_avg_sq;  // second moment
};
OptimizerState make_optimizer_state(const ParameterLayout& layout);

// Collective over the mesh. What each rank owns of gradients or moments, as whole buffers in the
// parameters' layout. Where this rank owns everything, the same tensors. `owned`: side by side, or
// whole buffers of which the other parts do not count.
FlatBuffers gather_owned(const Mesh& mesh, const ParameterLayout& layout, const FlatBuffers& owned);

// The way back: what this rank owns of whole buffers, side by side.
FlatBuffers owned_moments(const ParameterLayout& layout, const FlatBuffers& whole);

// Collective over the mesh. The Euclidean norm of all trained gradients, each counted once, on its
// owner.
// `gradients` here and below: what this rank owns side by side, or whole buffers.
double gradient_norm(const Mesh& mesh, const ParameterLayout& layout, const TrainedParts& trained,
                     const FlatBuffers& gradients);

// min(1, limit / (norm + 1e-6)); 1 where limit is 0.
double clip_factor(double norm, double limit);

struct AdamWUpdate {
  AdamWOptions options;
  double learning_rate = 0;
  double gradient_scale = 1;  // see clip_factor()
};

// One update of what this rank owns and trains. Local. Calls `after_bucket`, where there is one, as
// soon as a bucket is done.
// REQUIRES: every gradient is finite; the state is of this layout.
void adamw_step(const ParameterLayout& layout, const TrainedParts& trained,
                const AdamWUpdate& update, const FlatBuffers& gradients, FlatBuffers* parameters,
                OptimizerState* state, const std::function<void(size_t bucket)>& after_bucket = {});

}  // namespace emo
