#include "model/block.h"

namespace emo {

void block_forward(const BlockContext& context, const LayerWeights& weights,
                   const PlacedSlice& slice, int64_t layer, BlockActivations* kept,
                   BlockBuffers* buffers, at::Tensor* y) {
  Backend& backend = context.backend;
  const ModelConfig& config = context.config;
  KeyValueCache* cache = context.pass.cache;

  Timed timed(context.pass.profile, Work::kAttention);
  backend.rms_norm(kept->x, weights.attention_norm, config.norm_epsilon, context.stored,
                   &kept->attention_input);
  backend.linear(kept->attention_input.y, weights.qkv, context.stored, &kept->qkv);
  if (config.qk_norm) backend.qk_norm(weights, config.norm_epsilon, kept->qkv, &kept->qk_norm);
  backend.rotate(context.rope, Rotation::kForward, slice, config.n_heads, kept->qkv);
  if (cache != nullptr) {
    backend.attention_with_cache(slice, config.n_heads, kept->qkv, cache, layer, &kept->attended);
  } else {
    backend.attention(slice, config.n_heads, kept->qkv, &kept->attended);
  }
  backend.add_linear(kept->x, kept->attended.out, weights.attention_out, &kept->h);

  timed.switch_to(Work::kOther);
  backend.rms_norm(kept->h, weights.feed_forward_norm, config.norm_epsilon, context.stored,
                   &kept->feed_forward_input);
  backend.copy(kept->h, y);
  if (config.is_dense(layer)) {
    timed.switch_to(Work::kExperts);
    backend.feed_forward(weights.always, kept->feed_forward_input.y, &kept->dense_hidden, *y);
    return;
  }
  timed.pause();
  moe_forward(context, weights, slice, layer, kept->feed_forward_input.y, &kept->moe, &buffers->moe,
              *y);
}

void block_backward(const BlockContext& context, const LayerWeights& weights,
                    const PlacedSlice& slice, const RouterLosses& losses, BlockActivations* kept,
                    BlockBuffers* buffers, const LayerWeights& gradients, const at::Tensor& d) {
  Backend& backend = context.backend;
  const ModelConfig& config = context.config;

  const at::Tensor& dy = backend.as_stored(d, context.stored, &buffers->d_stored);
  if (weights.router.defined()) {
    moe_backward(context, weights, kept->feed_forward_input.y, dy, losses, &kept->moe,
                 &buffers->moe, gradients, &buffers->d_hidden);
  } else {
    const Timed timed(context.pass.profile, Work::kExperts);
    backend.feed_forward_backward(weights.always, gradients.always, kept->feed_forward_input.y, dy,
                                  &kept->dense_hidden, &buffers->d_hidden);
  }
  Timed timed(context.pass.profile, Work::kOther);
  backend.rms_norm_backward(kept->h, weights.feed_forward_norm, kept->feed_forward_input,
                            buffers->d_hidden, d, gradients.feed_forward_norm);

  timed.switch_to(Work::kAttention);
  const at::Tensor& d_out = backend.as_stored(d, context.stored, &buffers->d_stored);
  backend.linear_backward(d_out, kept->attended.out, weights.attention_out, context.stored,
                          &buffers->d_attended, gradients.attention_out);
  backend.attention_backward(slice, config.n_heads, kept->qkv, kept->attended, buffers->d_attended,
                             &buffers->d_qkv);
  backend.rotate(context.rope, Rotation::kBackward, slice, config.n_heads, buffers->d_qkv);
  if (config.qk_norm) {
    backend.qk_norm_backward(weights, kept->qk_norm, buffers->d_qkv, gradients);
  }
  backend.linear_backward(buffers->d_qkv, kept->attention_input.y, weights.qkv, d.scalar_type(),
                          &buffers->d_hidden, gradients.qkv);
  backend.rms_norm_backward(kept->x, weights.attention_norm, kept->attention_input,
                            buffers->d_hidden, d, gradients.attention_norm);
}

}  // namespace emo
