#include "train/optimizer/optimizer.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/host/simd.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr int64_t kBlock = 1 << 14;  // floats of one partial sum

EMO_SIMD double sum_of_squares(int64_t count, const float* x) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

// On all threads; the same bits with any number of them.
double blocked_sum_of_squares(int64_t count, const float* x) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      partial[b] = vectorised<sum_of_squares>(std::min(kBlock, count - b * kBlock), x + b * kBlock);
    }
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}

EMO_SIMD void update(int64_t count, const AdamWFactors& f, float gradient_scale,
                     const float* gradient, float* parameter, float* m, float* v) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * gradient_scale;
    m[i] = f.beta1 * m[i] + (1 - f.beta1) * g;
    v[i] = f.beta2 * v[i] + (1 - f.beta2) * g * g;
    const float denominator = std::sqrt(v[i]) * f.root_correction + f.epsilon;
    parameter[i] = parameter[i] * f.keep - f.step_size * m[i] / denominator;
  }
}

// The squares of what this rank owns of a buffer and trains.
double owned_squares(const Sharding& sharding, const std::vector<Span>& trained,
                     const at::Tensor& gradients) {
  double sum = 0;
  for (size_t bucket = 0; bucket < sharding.buckets.size(); ++bucket) {
    const float* part = gradients.const_data_ptr<float>() + sharding.begin_in(bucket, gradients);
    for (const Span& span : trained_of_part(sharding, bucket, trained)) {
      sum += blocked_sum_of_squares(span.end - span.begin, part + span.begin);
    }
  }
  return sum;
}

// Updates what this rank owns of a bucket and trains.
void update_part(const AdamWFactors& factors, double gradient_scale, const Sharding& sharding,
                 size_t bucket, const std::vector<Span>& trained, const at::Tensor& gradients,
                 const at::Tensor& parameters, const at::Tensor& m, const at::Tensor& v) {
  const float* gradient = gradients.const_data_ptr<float>() + sharding.begin_in(bucket, gradients);
  float* parameter = parameters.mutable_data_ptr<float>() + sharding.part_begin(bucket);
  float* first = m.mutable_data_ptr<float>() + sharding.owned_begin(bucket);
  float* second = v.mutable_data_ptr<float>() + sharding.owned_begin(bucket);
  for (const Span& span : trained_of_part(sharding, bucket, trained)) {
    parallel_for(span.end - span.begin, kBlock, [&](int64_t begin, int64_t end) {
      const int64_t at = span.begin + begin;
      vectorised<update>(end - begin, factors, static_cast<float>(gradient_scale), gradient + at,
                         parameter + at, first + at, second + at);
    });
  }
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

}  // namespace

OptimizerState make_optimizer_state(const ParameterLayout& layout) {
  const auto moments = [&] {
    const auto options = at::TensorOptions().dtype(at::kFloat);
    return FlatBuffers{at::zeros({layout.dense.owned_size()}, options),
                       at::zeros({layout.experts.owned_size()}, options)};
  };
  return {0, moments(), moments()};
}

FlatBuffers gather_owned(const Mesh& mesh, const ParameterLayout& layout,
                         const FlatBuffers& owned) {
  return {gather(*mesh.world, layout.dense, owned.dense),
          gather(*mesh.dp, layout.experts, owned.experts)};
}

FlatBuffers owned_moments(const ParameterLayout& layout, const FlatBuffers& whole) {
  return {owned_of(layout.dense, whole.dense), owned_of(layout.experts, whole.experts)};
}

double gradient_norm(const Mesh& mesh, const ParameterLayout& layout, const TrainedParts& trained,
                     const FlatBuffers& gradients) {
  double squares = owned_squares(layout.dense, trained.dense, gradients.dense) +
                   owned_squares(layout.experts, trained.experts, gradients.experts);
  mesh.world->all_reduce(at::from_blob(&squares, {1}, at::kDouble), ReduceOp::kSum);
  return std::sqrt(squares);
}

double clip_factor(double norm, double limit) {
  return limit > 0 ? std::min(1.0, limit / (norm + 1e-6)) : 1.0;
}

void adamw_step(const ParameterLayout& layout, const TrainedParts& trained,
                const AdamWUpdate& update, const FlatBuffers& gradients, FlatBuffers* parameters,
                OptimizerState* state, const std::function<void(size_t)>& after_bucket) {
  ++state->step;
  const auto factors = [&](bool decayed) {
    return adamw_factors(update.options, update.learning_rate, state->step, decayed);
  };
  for (size_t bucket = 0; bucket < layout.dense.buckets.size(); ++bucket) {
    // Padding is zero and stays so.
    update_part(factors(bucket != kEmbeddingBucket), update.gradient_scale, layout.dense, bucket,
                trained.dense, gradients.dense, parameters->dense, state->exp_avg.dense,
                state->exp_avg_sq.dense);
    update_part(factors(true), update.gradient_scale, layout.experts, bucket, trained.experts,
                gradients.experts, parameters->experts, state->exp_avg.experts,
                state->exp_avg_sq.experts);
    if (after_bucket) after_bucket(bucket);
  }
}

}  // namespace emo
