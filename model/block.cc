#include "model/block.h"

#include <utility>

#include "model/attention.h"
#include "model/linear.h"
#include "model/rms_norm.h"

namespace emo {
namespace {

float* data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

AttentionShape attention_shape(const ModelConfig& config, const MicroBatch& batch) {
  return {config.n_heads, config.head_dim(), batch.attention_ends.const_data_ptr<int32_t>(),
          batch.attention_ends.numel() - 1};
}

}  // namespace

void block_forward(const MoeContext& context, const LayerWeights& weights, const RopeTable& rope,
                   const MicroBatch& batch, std::vector<int64_t> pool_sizes,
                   const ExpertSubset& subset, const at::Tensor& y, BlockActivations* kept,
                   BlockBuffers* buffers) {
  const ModelConfig& config = *context.config;
  const int64_t T = batch.num_tokens();
  const int64_t D = config.d_model;
  const auto epsilon = static_cast<float>(config.norm_epsilon);
  shape_buffer(&kept->attention_input, {T, D});
  shape_buffer(&kept->attention_reciprocal, {T});
  shape_buffer(&kept->qkv, {T, 3 * D});
  shape_buffer(&kept->attended, {T, D});
  shape_buffer(&kept->logsumexp, {T, config.n_heads});
  shape_buffer(&kept->h, {T, D});
  shape_buffer(&kept->feed_forward_input, {T, D});
  shape_buffer(&kept->feed_forward_reciprocal, {T});

  Timed timed(context.profile, Work::kAttention);
  rms_norm(T, D, data(kept->x), weights.attention_norm, epsilon, data(kept->attention_input),
           data(kept->attention_reciprocal));
  linear(T, 3 * D, D, {data(kept->attention_input), D}, {weights.qkv, D}, 0,
         {data(kept->qkv), 3 * D});
  rotate(rope, Rotation::kForward, T, batch.positions.const_data_ptr<int32_t>(), 2 * config.n_heads,
         config.head_dim(), 3 * D, data(kept->qkv));  // queries and keys
  attention(attention_shape(config, batch), data(kept->qkv), data(kept->attended),
            data(kept->logsumexp), &buffers->feed_forward.scratch);
  copy_buffer(kept->x, kept->h);
  linear(T, D, D, {data(kept->attended), D}, {weights.attention_out, D}, 1, {data(kept->h), D});

  timed.switch_to(Work::kOther);
  rms_norm(T, D, data(kept->h), weights.feed_forward_norm, epsilon, data(kept->feed_forward_input),
           data(kept->feed_forward_reciprocal));
  copy_buffer(kept->h, y);
  if (weights.router == nullptr) {
    timed.switch_to(Work::kExperts);
    always_forward(weights.always, kept->feed_forward_input, y, &kept->dense_hidden,
                   &buffers->feed_forward);
    return;
  }
  timed.pause();
  moe_forward(context, weights, kept->feed_forward_input, batch.routing_ends, std::move(pool_sizes),
              subset, y, &kept->moe, &buffers->feed_forward);
}

void block_backward(const MoeContext& context, const LayerWeights& weights,
                    const LayerWeights& gradients, const RopeTable& rope, const MicroBatch& batch,
                    const std::vector<float>& balance, float z, const at::Tensor& d,
                    BlockActivations* kept, BlockBuffers* buffers) {
  const ModelConfig& config = *context.config;
  const int64_t T = batch.num_tokens();
  const int64_t D = config.d_model;
  shape_buffer(&buffers->d_hidden, {T, D});
  shape_buffer(&buffers->d_attended, {T, D});
  shape_buffer(&buffers->d_qkv, {T, 3 * D});
  float* d_hidden = data(buffers->d_hidden);
  float* d_qkv = data(buffers->d_qkv);

  if (weights.router == nullptr) {
    const Timed timed(context.profile, Work::kExperts);
    always_backward(weights.always, gradients.always, kept->feed_forward_input, d,
                    buffers->d_hidden, &kept->dense_hidden, &buffers->feed_forward);
  } else {
    moe_backward(context, weights, gradients, kept->feed_forward_input, d, balance, z,
                 buffers->d_hidden, &kept->moe, &buffers->feed_forward);
  }
  Timed timed(context.profile, Work::kOther);
  rms_norm_backward(T, D, data(kept->h), weights.feed_forward_norm,
                    data(kept->feed_forward_reciprocal), d_hidden, data(d),
                    gradients.feed_forward_norm, &buffers->partial);

  timed.switch_to(Work::kAttention);
  linear_input_gradient(T, D, D, {data(d), D}, {weights.attention_out, D}, 0,
                        {data(buffers->d_attended), D});
  linear_weight_gradient(T, D, D, {data(d), D}, {data(kept->attended), D}, 1,
                         {gradients.attention_out, D});
  attention_backward(attention_shape(config, batch), data(kept->qkv), data(kept->attended),
                     data(kept->logsumexp), data(buffers->d_attended), d_qkv,
                     &buffers->feed_forward.scratch);
  rotate(rope, Rotation::kBackward, T, batch.positions.const_data_ptr<int32_t>(),
         2 * config.n_heads, config.head_dim(), 3 * D, d_qkv);
  linear_input_gradient(T, 3 * D, D, {d_qkv, 3 * D}, {weights.qkv, D}, 0, {d_hidden, D});
  linear_weight_gradient(T, 3 * D, D, {d_qkv, 3 * D}, {data(kept->attention_input), D}, 1,
                         {gradients.qkv, D});
  rms_norm_backward(T, D, data(kept->x), weights.attention_norm, data(kept->attention_reciprocal),
                    d_hidden, data(d), gradients.attention_norm, &buffers->partial);
}

}  // namespace emo
