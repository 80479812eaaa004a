#include "train/optimizer/optimizer.h"

#include <ATen/ops/zeros.h>

namespace emo {
namespace {

FlatBuffers owned_zeros(const ParameterLayout& layout, const at::TensorOptions& options) {
  return {at::zeros({layout.dense.owned_size()}, options),
          at::zeros({layout.experts.owned_size()}, options)};
}

at::Tensor gather(Communicator& group, const Sharding& sharding, const at::Tensor& owned) {
  if (sharding.ranks == 1) return owned;
  at::Tensor whole = owned;
  if (owned.numel() != sharding.size()) {
    whole = at::zeros({sharding.size()}, owned.options());
    put_owned_parts(sharding, owned, whole);
  }
  all_gather_buckets(group, sharding, whole);
  return whole;
}

at::Tensor owned_of(const Sharding& sharding, const at::Tensor& whole) {
  return sharding.ranks == 1 ? whole : owned_parts(sharding, whole);
}

// The two buffers of a layout, what is trained of each.
struct Half {
  const Sharding& sharding;
  at::Tensor FlatBuffers::*buffer;
  const std::vector<Span>& trained;
};
std::vector<Half> halves(const ParameterLayout& layout, const TrainedParts& trained) {
  return {{layout.dense, &FlatBuffers::dense, trained.dense},
          {layout.experts, &FlatBuffers::experts, trained.experts}};
}

// A span of this rank's part of a bucket, in a buffer that is whole or holds owned parts side by
// side; of an undefined one, undefined.
at::Tensor part(const Half& half, size_t bucket, const Span& span, const FlatBuffers& buffers) {
  const at::Tensor& buffer = buffers.*half.buffer;
  if (!buffer.defined()) return buffer;
  const int64_t begin = half.sharding.begin_in(bucket, buffer);
  return buffer.slice(0, begin + span.begin, begin + span.end);
}

}  // namespace

OptimizerState make_optimizer_state(const ParameterLayout& layout) {
  return {0, owned_zeros(layout, at::kFloat), owned_zeros(layout, at::kFloat), {}};
}

OptimizerState make_optimizer_state(const Model& model) {
  const auto options = model.parameters.dense.options().dtype(at::kFloat);
  const bool own_masters = model.parameters.dense.scalar_type() == at::kFloat;
  return {0, owned_zeros(model.layout, options), owned_zeros(model.layout, options),
          own_masters ? FlatBuffers() : owned_zeros(model.layout, options)};
}

void load_masters(const ParameterLayout& layout, const FlatBuffers& parameters,
                  OptimizerState* state) {
  if (!state->master.dense.defined()) return;
  state->master.dense.copy_(owned_parts(layout.dense, parameters.dense));
  state->master.experts.copy_(owned_parts(layout.experts, parameters.experts));
}

FlatBuffers gather_owned(const Mesh& mesh, const ParameterLayout& layout,
                         const FlatBuffers& owned) {
  return {gather(*mesh.world, layout.dense, owned.dense),
          gather(*mesh.dp, layout.experts, owned.experts)};
}

FlatBuffers owned_moments(const ParameterLayout& layout, const FlatBuffers& whole) {
  return {owned_of(layout.dense, whole.dense), owned_of(layout.experts, whole.experts)};
}

at::Tensor gradient_squares(const Model& model, const TrainedParts& trained,
                            const FlatBuffers& gradients) {
  at::Tensor sum;
  for (const Half& half : halves(model.layout, trained)) {
    std::vector<at::Tensor> parts;
    for (size_t bucket = 0; bucket < half.sharding.buckets.size(); ++bucket) {
      for (const Span& span : trained_of_part(half.sharding, bucket, half.trained)) {
        parts.push_back(part(half, bucket, span, gradients));
      }
    }
    const at::Tensor squares = model.backend->sum_of_squares(parts);
    sum = sum.defined() ? sum.add(squares) : squares;
  }
  return sum;
}

void adamw_step(const TrainedParts& trained, const AdamWUpdate& update,
                const FlatBuffers& gradients, Model* model, OptimizerState* state,
                const std::function<void(size_t)>& after_bucket) {
  ++state->step;
  const bool own_masters = !state->master.dense.defined();
  for (size_t bucket = 0; bucket < model->layout.dense.buckets.size(); ++bucket) {
    const AdamWFactors factors = adamw_factors(update.options, update.learning_rate, state->step,
                                               bucket != kEmbeddingBucket);
    for (const Half& half : halves(model->layout, trained)) {
      // Padding is zero and stays so.
      for (const Span& span : trained_of_part(half.sharding, bucket, half.trained)) {
        const at::Tensor parameter = part(half, bucket, span, model->parameters);
        model->backend->adamw(factors, update.control, part(half, bucket, span, gradients),
                              own_masters ? parameter : part(half, bucket, span, state->master),
                              part(half, bucket, span, state->exp_avg),
                              part(half, bucket, span, state->exp_avg_sq),
                              own_masters ? at::Tensor() : parameter);
      }
    }
    if (after_bucket) after_bucket(bucket);
  }
}

}  // namespace emo
