#include "model/device/block.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <utility>

#include "model/device/experts.h"
#include "model/device/kernels/rms_norm.h"
#include "model/device/matrix.h"

namespace emo::device {
namespace {

at::Tensor normalise(const BlockContext& context, const at::Tensor& x, const at::Tensor& w,
                     at::Tensor* reciprocal) {
  const at::Tensor y = at::empty_like(x);
  *reciprocal = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  rms_norm(x, w, static_cast<float>(context.config.norm_epsilon), y, *reciprocal);
  return y;
}

// Queries or keys among the columns of S [T, 2 D] or S [T, 3 D].
at::Tensor columns(const at::Tensor& matrix, int64_t part, int64_t D) {
  return matrix.slice(1, part * D, (part + 1) * D);
}

// Normalises the queries and keys of kept->qkv, which are not rotated yet, in place.
void qk_norm(const BlockContext& context, const LayerTensors& weights, BlockKept* kept) {
  const int64_t D = context.config.d_model;
  const auto epsilon = static_cast<float>(context.config.norm_epsilon);
  kept->qk_raw = kept->qkv.slice(1, 0, 2 * D).clone(at::MemoryFormat::Contiguous);
  const auto normalise_part = [&](int64_t part, const at::Tensor& w, at::Tensor* reciprocal) {
    *reciprocal = at::empty({kept->qkv.size(0)}, w.options().dtype(at::kFloat));
    rms_norm(columns(kept->qk_raw, part, D), w, epsilon, columns(kept->qkv, part, D), *reciprocal);
  };
  normalise_part(0, weights.q_norm, &kept->q_reciprocal);
  normalise_part(1, weights.k_norm, &kept->k_reciprocal);
}

// From the gradients of normalised queries and keys to those of raw ones, in place.
void qk_norm_backward(const LayerTensors& weights, const LayerTensors& gradients,
                      const BlockKept& kept, const at::Tensor& d_qkv) {
  const int64_t D = weights.q_norm.size(0);
  const at::Tensor d_raw = at::zeros_like(kept.qk_raw);
  rms_norm_backward(columns(kept.qk_raw, 0, D), weights.q_norm, kept.q_reciprocal,
                    columns(d_qkv, 0, D), columns(d_raw, 0, D), gradients.q_norm);
  rms_norm_backward(columns(kept.qk_raw, 1, D), weights.k_norm, kept.k_reciprocal,
                    columns(d_qkv, 1, D), columns(d_raw, 1, D), gradients.k_norm);
  d_qkv.slice(1, 0, 2 * D).copy_(d_raw);
}

// Adds to y S [T, D].
void moe_forward(const BlockContext& context, const LayerTensors& weights, const DeviceSlice& slice,
                 int64_t layer, const at::Tensor& x, const at::Tensor& y,
                 std::vector<at::Tensor>* always_hidden, MoeKept* kept) {
  const PassSettings& settings = context.pass.settings;
  TORCH_CHECK(settings.exchange == ExchangeMode::kOncePerRank,
              "a device sends a token once to each rank, not once for each expert");
  RouterInput& input = kept->router_input;
  input.logits = linear_fp32(x, weights.router);
  input.spans = slice.routing;
  input.pool_sizes = slice.pool_sizes[layer];
  input.pool = settings.pool_of(context.contract);
  input.top_k = context.config.routed_top_k(layer);
  if (!settings.subsets.empty()) input.subset = settings.subsets[layer];
  input.labels = loss_labels(context.contract, slice);
  kept->routing = route(input, context.contract);
  if (settings.routed_off) kept->routing.experts.fill_(-1);
  kept->plan = plan_exchange(*context.pass.ep, context.placements[layer], kept->routing.experts,
                             kept->routing.weights, context.counters);
  RowsInFlight flight = send_rows(*context.pass.ep, kept->plan, x, context.counters);
  *always_hidden = always_forward(weights.always, x, y);  // while rows are in flight
  kept->rows = flight.wait();
  at::Tensor lengths;
  const at::Tensor out = apply_experts(weights.routed, kept->plan, kept->rows, &kept->routed_hidden,
                                       context.pass.want_contributions ? &lengths : nullptr);
  return_rows(*context.pass.ep, kept->plan, out, y, context.counters);
  if (lengths.defined()) kept->contributions = return_slots(*context.pass.ep, kept->plan, lengths);
  if (settings.recompute != Recompute::kMoe) return;
  always_hidden->clear();
  kept->routed_hidden.reset();
}

// Answers the gradient of x S [T, D] from dy S [T, D].
at::Tensor moe_backward(const BlockContext& context, const LayerTensors& weights,
                        const LayerTensors& gradients, const RouterLosses& losses,
                        const at::Tensor& x, const at::Tensor& dy,
                        std::vector<at::Tensor> always_hidden, const MoeKept& kept) {
  RowsInFlight flight = send_rows(*context.pass.ep, kept.plan, dy, context.counters);
  at::Tensor routed_hidden = kept.routed_hidden;
  if (context.pass.settings.recompute == Recompute::kMoe) {
    always_hidden = hidden_rows(weights.always, x);
    routed_hidden = hidden_pairs(weights.routed, kept.plan, kept.rows);
  }
  const at::Tensor dx = always_backward(weights.always, gradients.always, x, always_hidden, dy);
  const at::Tensor d_out = flight.wait();
  const ExpertGradients experts =
      apply_experts_backward(weights.routed, gradients.routed, context.onto_expert_gradients,
                             kept.plan, kept.rows, routed_hidden, d_out);
  return_rows(*context.pass.ep, kept.plan, experts.rows, dx, context.counters);
  const at::Tensor d_weights =
      return_slots(*context.pass.ep, kept.plan, experts.slots, context.counters);
  const at::Tensor d_logits = route_backward(kept.router_input, context.contract, kept.routing,
                                             d_weights, losses.balance, losses.z);
  dx.add_(linear_input_gradient(d_logits, weights.router.to(at::kFloat)));
  add_weight_gradient(gradients.router, d_logits, x.to(at::kFloat));
  return dx;
}

}  // namespace

at::Tensor block_forward(const BlockContext& context, const LayerTensors& weights,
                         const DeviceSlice& slice, int64_t layer, BlockKept* kept) {
  const ModelConfig& config = context.config;
  kept->attention_input =
      normalise(context, kept->x, weights.attention_norm, &kept->attention_reciprocal);
  kept->qkv = linear(kept->attention_input, weights.qkv);
  if (config.qk_norm) qk_norm(context, weights, kept);
  rotate(context.rope, Rotation::kForward, slice.positions, 2 * config.n_heads, config.head_dim(),
         kept->qkv);  // queries and keys
  const KeyValueCache* cache = context.pass.cache;
  if (cache != nullptr) {
    kept->attended.out =
        attention_with_cache(slice, config.n_heads, kept->qkv, cache->layers[layer]);
  } else {
    kept->attended = attention(slice, config.n_heads, kept->qkv);
  }
  kept->h = at::addmm(kept->x, kept->attended.out, weights.attention_out.t());

  kept->feed_forward_input =
      normalise(context, kept->h, weights.feed_forward_norm, &kept->feed_forward_reciprocal);
  const at::Tensor y = kept->h.clone();
  if (config.is_dense(layer)) {
    kept->always_hidden = always_forward(weights.always, kept->feed_forward_input, y);
  } else {
    moe_forward(context, weights, slice, layer, kept->feed_forward_input, y, &kept->always_hidden,
                &kept->moe);
  }
  return y;
}

void block_backward(const BlockContext& context, const LayerTensors& weights,
                    const LayerTensors& gradients, const DeviceSlice& slice,
                    const RouterLosses& losses, const at::Tensor& d, BlockKept* kept) {
  const ModelConfig& config = context.config;
  at::Tensor d_hidden =
      weights.router.defined()
          ? moe_backward(context, weights, gradients, losses, kept->feed_forward_input, d,
                         std::move(kept->always_hidden), kept->moe)
          : always_backward(weights.always, gradients.always, kept->feed_forward_input,
                            kept->always_hidden, d);
  rms_norm_backward(kept->h, weights.feed_forward_norm, kept->feed_forward_reciprocal, d_hidden, d,
                    gradients.feed_forward_norm);

  const at::Tensor d_attended = linear_input_gradient(d, weights.attention_out);
  add_weight_gradient(gradients.attention_out, d, kept->attended.out);
  const at::Tensor d_qkv =
      attention_backward(slice, config.n_heads, kept->qkv, kept->attended, d_attended);
  rotate(context.rope, Rotation::kBackward, slice.positions, 2 * config.n_heads, config.head_dim(),
         d_qkv);
  if (config.qk_norm) qk_norm_backward(weights, gradients, *kept, d_qkv);
  d_hidden = linear_input_gradient(d_qkv, weights.qkv);
  add_weight_gradient(gradients.qkv, d_qkv, kept->attention_input);
  rms_norm_backward(kept->x, weights.attention_norm, kept->attention_reciprocal, d_hidden, d,
                    gradients.attention_norm);
  *kept = {};
}

}  // namespace emo::device
