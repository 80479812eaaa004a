// AdamW (model/adamw.h) over a model's flat buffers, where it computes: state and updates of what
// this rank owns (parallel/sharding.h).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/adamw.h"
#include "model/parameters.h"
#include "model/transformer.h"
#include "parallel/mesh.h"
#include "train/optimizer/trained_parts.h"

namespace emo {

// Of the parts of the parameters that this rank owns, side by side, fp32.
struct OptimizerState {
  int64_t step = 0;        // updates done
  FlatBuffers exp_avg;     // first moment
  FlatBuffers exp_avg_sq;  // second moment
  FlatBuffers master;      // undefined where parameters are fp32, and so their own masters
};

// On the host, for fp32 parameters.
OptimizerState make_optimizer_state(const ParameterLayout& layout);
// Where the model computes. The masters are zero until load_masters().
OptimizerState make_optimizer_state(const Model& model);

// What this rank owns of whole fp32 parameters in this layout, anywhere, becomes the masters, where
// there are any.
void load_masters(const ParameterLayout& layout, const FlatBuffers& parameters,
                  OptimizerState* state);

// Collective over the mesh. What each rank owns of gradients or moments, as whole buffers in the
// parameters' layout. Where this rank owns everything, the same tensors. `owned`: side by side, or
// whole buffers of which the other parts do not count.
FlatBuffers gather_owned(const Mesh& mesh, const ParameterLayout& layout, const FlatBuffers& owned);

// The way back: what this rank owns of whole buffers, side by side.
FlatBuffers owned_moments(const ParameterLayout& layout, const FlatBuffers& whole);

// f64 [1]: the squares of the gradients that this rank owns and trains. Local. `gradients`, here
// and below: what this rank owns side by side, or whole buffers.
at::Tensor gradient_squares(const Model& model, const TrainedParts& trained,
                            const FlatBuffers& gradients);

struct AdamWUpdate {
  AdamWOptions options;
  double learning_rate = 0;
  at::Tensor control;  // Backend::clip_control()
};

// One update of what this rank owns and trains. Local. Calls `after_bucket`, where there is one, as
// soon as a bucket is done. Counts a step also where `control` forbids the update.
void adamw_step(const TrainedParts& trained, const AdamWUpdate& update,
                const FlatBuffers& gradients, Model* model, OptimizerState* state,
                const std::function<void(size_t bucket)>& after_bucket = {});

}  // namespace emo
