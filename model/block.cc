#include "model/block.h"

#include <type_traits>

#include "model/host/attention.h"
#include "model/host/linear.h"
#include "model/host/qk_norm.h"
#include "model/host/rms_norm.h"

namespace emo {
namespace {

float* data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

template <typename Stored>
Stored* stored(const at::Tensor& tensor) {
  return tensor.mutable_data_ptr<Stored>();
}

AttentionShape attention_shape(const ModelConfig& config, const Slice& slice) {
  return {config.n_heads, config.head_dim(), slice.attention_ends.const_data_ptr<int32_t>(),
          slice.attention_ends.numel() - 1};
}

template <typename Stored>
void run_forward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                 int64_t layer, BlockActivations* kept, BlockBuffers* buffers, at::Tensor* y) {
  const ModelConfig& config = context.config;
  const int64_t T = slice.num_tokens();
  const int64_t D = config.d_model;
  const auto epsilon = static_cast<float>(config.norm_epsilon);
  Stored* attention_input = shape_stored<Stored>(&kept->attention_input, {T, D});
  shape_buffer(&kept->attention_reciprocal, {T});
  Stored* qkv = shape_stored<Stored>(&kept->qkv, {T, 3 * D});
  Stored* attended = shape_stored<Stored>(&kept->attended, {T, D});
  shape_buffer(&kept->logsumexp, {T, config.n_heads});
  shape_buffer(&kept->h, {T, D});
  Stored* feed_forward_input = shape_stored<Stored>(&kept->feed_forward_input, {T, D});
  shape_buffer(&kept->feed_forward_reciprocal, {T});

  Timed timed(context.pass.profile, Work::kAttention);
  rms_norm(T, D, data(kept->x), weights.attention_norm, epsilon, attention_input,
           data(kept->attention_reciprocal));
  linear(T, 3 * D, D, {attention_input, D}, {weights.qkv, D}, 0, {qkv, 3 * D});
  if (config.qk_norm) {
    qk_norm(T, D, weights.qk_norm, epsilon, qkv, shape_stored<Stored>(&kept->qk_raw, {T, 2 * D}),
            data(shape_buffer(&kept->qk_reciprocal, {T, 2})));
  }
  rotate(context.rope, Rotation::kForward, T, slice.positions.const_data_ptr<int32_t>(),
         2 * config.n_heads, config.head_dim(), 3 * D, qkv);  // queries and keys
  AttentionShape shape = attention_shape(config, slice);
  std::vector<CachedSpan> cached;
  if constexpr (std::is_same_v<Stored, float>) {
    KeyValueCache* cache = context.pass.cache;
    if (cache != nullptr) cached = append(cache, layer, shape.span_ends, qkv);
    if (cache != nullptr) shape.cached = cached.data();
  }
  attention(shape, qkv, attended, data(kept->logsumexp), &buffers->feed_forward.scratch);
  copy_buffer(kept->x, kept->h);
  linear(T, D, D, {attended, D}, {weights.attention_out, D}, 1, {data(kept->h), D});

  timed.switch_to(Work::kOther);
  rms_norm(T, D, data(kept->h), weights.feed_forward_norm, epsilon, feed_forward_input,
           data(kept->feed_forward_reciprocal));
  copy_buffer(kept->h, *y);
  if (weights.router == nullptr) {
    timed.switch_to(Work::kExperts);
    always_forward<Stored>(weights.always, kept->feed_forward_input, &kept->dense_hidden,
                           &buffers->feed_forward, y);
    return;
  }
  timed.pause();
  moe_forward<Stored>(context, weights, slice, layer, kept->feed_forward_input, &kept->moe,
                      &buffers->feed_forward, y);
}

template <typename Stored>
void run_backward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                  const RouterLosses& losses, BlockActivations* kept, BlockBuffers* buffers,
                  LayerWeights* gradients, at::Tensor* d) {
  const ModelConfig& config = context.config;
  const int64_t T = slice.num_tokens();
  const int64_t D = config.d_model;
  shape_buffer(&buffers->d_hidden, {T, D});
  Stored* d_attended = shape_stored<Stored>(&buffers->d_attended, {T, D});
  Stored* d_qkv = shape_stored<Stored>(&buffers->d_qkv, {T, 3 * D});
  float* d_hidden = data(buffers->d_hidden);
  const Stored* qkv = stored<Stored>(kept->qkv);
  const Stored* attended = stored<Stored>(kept->attended);

  if (weights.router == nullptr) {
    const Timed timed(context.pass.profile, Work::kExperts);
    always_backward<Stored>(weights.always, kept->feed_forward_input,
                            as_stored<Stored>(*d, &buffers->d_stored), &kept->dense_hidden,
                            &buffers->feed_forward, &gradients->always, &buffers->d_hidden);
  } else {
    moe_backward<Stored>(context, weights, kept->feed_forward_input,
                         as_stored<Stored>(*d, &buffers->d_stored), losses, &kept->moe,
                         &buffers->feed_forward, gradients, &buffers->d_hidden);
  }
  Timed timed(context.pass.profile, Work::kOther);
  rms_norm_backward(T, D, data(kept->h), weights.feed_forward_norm,
                    data(kept->feed_forward_reciprocal), d_hidden, data(*d),
                    gradients->feed_forward_norm, &buffers->partial);

  timed.switch_to(Work::kAttention);
  const Stored* d_out = stored<Stored>(as_stored<Stored>(*d, &buffers->d_stored));
  linear_input_gradient(T, D, D, {d_out, D}, {weights.attention_out, D}, 0, {d_attended, D});
  linear_weight_gradient(T, D, D, {d_out, D}, {attended, D}, 1, {gradients->attention_out, D});
  attention_backward(attention_shape(config, slice), qkv, attended, data(kept->logsumexp),
                     d_attended, d_qkv, &buffers->feed_forward.scratch);
  rotate(context.rope, Rotation::kBackward, T, slice.positions.const_data_ptr<int32_t>(),
         2 * config.n_heads, config.head_dim(), 3 * D, d_qkv);
  if (config.qk_norm) {
    qk_norm_backward(T, D, weights.qk_norm, stored<Stored>(kept->qk_raw), data(kept->qk_reciprocal),
                     d_qkv, gradients->qk_norm, &buffers->partial);
  }
  linear_input_gradient(T, 3 * D, D, {d_qkv, 3 * D}, {weights.qkv, D}, 0, {d_hidden, D});
  linear_weight_gradient(T, 3 * D, D, {d_qkv, 3 * D}, {stored<Stored>(kept->attention_input), D}, 1,
                         {gradients->qkv, D});
  rms_norm_backward(T, D, data(kept->x), weights.attention_norm, data(kept->attention_reciprocal),
                    d_hidden, data(*d), gradients->attention_norm, &buffers->partial);
}

}  // namespace

void block_forward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                   int64_t layer, BlockActivations* kept, BlockBuffers* buffers, at::Tensor* y) {
  with_element(context.pass.settings.precision, [&](auto element) {
    run_forward<decltype(element)>(context, weights, slice, layer, kept, buffers, y);
  });
}

void block_backward(const BlockContext& context, const LayerWeights& weights, const Slice& slice,
                    const RouterLosses& losses, BlockActivations* kept, BlockBuffers* buffers,
                    LayerWeights* gradients, at::Tensor* d) {
  with_element(context.pass.settings.precision, [&](auto element) {
    run_backward<decltype(element)>(context, weights, slice, losses, kept, buffers, gradients, d);
  });
}

}  // namespace emo
