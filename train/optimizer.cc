#include "train/optimizer.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/simd.h"
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

double sum_of_squares(const at::Tensor& flat) {
  const int64_t count = flat.numel();
  const auto* x = flat.const_data_ptr<float>();
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<double> partial(blocks);
  parallel_for(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      partial[b] = sum_of_squares(std::min(kBlock, count - b * kBlock), x + b * kBlock);
    }
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}

// Factors of one update, the same for all elements.
struct Factors {
  float beta1, beta2, epsilon, keep, step_size, root_correction, gradient_scale;
};

EMO_SIMD void update(int64_t count, const Factors& f, const float* gradient, float* parameter,
                     float* m, float* v) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * f.gradient_scale;
    m[i] = f.beta1 * m[i] + (1 - f.beta1) * g;
    v[i] = f.beta2 * v[i] + (1 - f.beta2) * g * g;
    const float denominator = std::sqrt(v[i]) * f.root_correction + f.epsilon;
    parameter[i] = parameter[i] * f.keep - f.step_size * m[i] / denominator;
  }
}

void update_buffer(const Factors& factors, int64_t begin, int64_t end, const at::Tensor& gradients,
                   const at::Tensor& parameters, const at::Tensor& m, const at::Tensor& v) {
  parallel_for(end - begin, kBlock, [&](int64_t first, int64_t last) {
    const int64_t at = begin + first;
    update(last - first, factors, gradients.const_data_ptr<float>() + at,
           parameters.mutable_data_ptr<float>() + at, m.mutable_data_ptr<float>() + at,
           v.mutable_data_ptr<float>() + at);
  });
}

}  // namespace

OptimizerState make_optimizer_state(const ParameterLayout& layout) {
  return {0, make_buffers(layout), make_buffers(layout)};
}

double gradient_norm(const Mesh& mesh, const FlatBuffers& gradients) {
  double expert_squares = sum_of_squares(gradients.experts);
  mesh.ep->all_reduce(at::from_blob(&expert_squares, {1}, at::kDouble), ReduceOp::kSum);
  return std::sqrt(sum_of_squares(gradients.dense) + expert_squares);
}

double clip_factor(double norm, double limit) {
  return limit > 0 ? std::min(1.0, limit / (norm + 1e-6)) : 1.0;
}

void adamw_step(const ParameterLayout& layout, const AdamWOptions& options, double learning_rate,
                double gradient_scale, const FlatBuffers& gradients, const FlatBuffers& parameters,
                OptimizerState* state) {
  ++state->step;
  const auto t = static_cast<double>(state->step);
  Factors decayed{static_cast<float>(options.beta1),
                  static_cast<float>(options.beta2),
                  static_cast<float>(options.epsilon),
                  static_cast<float>(1 - learning_rate * options.weight_decay),
                  static_cast<float>(learning_rate / (1 - std::pow(options.beta1, t))),
                  static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, t))),
                  static_cast<float>(gradient_scale)};
  Factors plain = decayed;
  plain.keep = 1;
  // The dense buffer is cut where decay starts or stops; padding is zero and stays so.
  int64_t begin = 0;
  for (size_t i = 0; i < layout.parameters.size(); ++i) {
    const ParameterInfo& parameter = layout.parameters[i];
    if (parameter.buffer != ParameterBuffer::kDense) break;
    const bool last = i + 1 == layout.parameters.size() ||
                      layout.parameters[i + 1].buffer != ParameterBuffer::kDense;
    if (!last && layout.parameters[i + 1].decayed == parameter.decayed) continue;
    const int64_t end = last ? layout.dense_size : layout.parameters[i + 1].offset;
    update_buffer(parameter.decayed ? decayed : plain, begin, end, gradients.dense,
                  parameters.dense, state->exp_avg.dense, state->exp_avg_sq.dense);
    begin = end;
  }
  update_buffer(decayed, 0, layout.expert_size, gradients.experts, parameters.experts,
                state->exp_avg.experts, state->exp_avg_sq.experts);
}

}  // namespace emo
