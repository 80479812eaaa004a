#include "model/device/transformer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "model/device/kernels/balance.h"
#include "model/device/kernels/cross_entropy.h"
#include "model/device/kernels/embedding.h"
#include "model/device/kernels/rms_norm.h"
#include "model/device/limits.h"
#include "model/device/matrix.h"

namespace emo::device {
namespace {

// The config, where a device computes it.
const ModelConfig& checked(const ModelConfig& config, at::ScalarType type, at::Device device) {
  const std::vector<Limit> limits = limits_of(config, type, device.is_cuda());
  TORCH_CHECK(limits.empty(), limits.front().why);
  return config;
}

FlatBuffers device_buffers(const ParameterLayout& layout, at::Device device, at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type).device(device);
  return {at::zeros({layout.dense.size()}, options), at::zeros({layout.experts.size()}, options)};
}

RopeTensors rope_tensors(const ModelConfig& config, int64_t positions, at::Device device) {
  const RopeTable table(positions, config.head_dim(), config.rope_theta);
  const auto copy = [&](const float* values) {
    return at::from_blob(const_cast<float*>(values), {positions, config.head_dim() / 2}, at::kFloat)
        .clone()
        .to(device);
  };
  return {copy(table.cosines(0)), copy(table.sines(0))};
}

void announce(const std::function<void(size_t)>& listener, size_t bucket) {
  if (listener) listener(bucket);
}

// Whether the bucket's gradients of routed experts are added to.
bool ready_gradients(const PassOptions& pass, size_t bucket) {
  return pass.before_gradients == nullptr || pass.before_gradients(bucket);
}

// Where a layer's exchange is counted.
using Traffic = std::vector<ExchangeCounters>;
ExchangeCounters* counters_of(Traffic* traffic, int64_t layer) {
  return traffic == nullptr ? nullptr : &(*traffic)[layer];
}

BlockContext context_of(const DeviceModel& model, const PassOptions& pass) {
  return {model.config, model.contract, model.rope, model.placements, pass};
}

// What a slice keeps from its forward pass.
struct SliceKept {
  std::vector<BlockKept> blocks;  // [L]; with Recompute::kBlock only x
  std::vector<Routing> routings;  // [MoE layers]
  at::Tensor last;                // S [T, D] output of the last block
};

SliceKept forward(const DeviceModel& model, const DeviceSlice& slice, const PassOptions& pass,
                  Traffic* traffic) {
  const ModelConfig& config = model.config;
  BlockContext context = context_of(model, pass);
  SliceKept kept;
  announce(pass.before_parameters, kEmbeddingBucket);
  at::Tensor x = at::empty({slice.T, config.d_model}, model.parameters.dense.options());
  embed(slice.tokens, model.weights.embedding, x);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    announce(pass.before_parameters, layer_bucket(layer));
    BlockKept& block = kept.blocks.emplace_back();
    block.x = x;
    context.counters = counters_of(traffic, layer);
    x = block_forward(context, model.weights.layers[layer], slice, layer, &block);
    if (!config.is_dense(layer)) kept.routings.push_back(block.moe.routing);
    if (pass.settings.recompute == Recompute::kBlock) {
      BlockKept input;
      input.x = block.x;
      block = std::move(input);
    }
  }
  announce(pass.before_parameters, model.layout.head_bucket());
  kept.last = x;
  return kept;
}

// Logits, losses and their gradients in chunks of rows, so that [T, V] is never in memory. Answers
// the gradient of the normalised input S [T, D].
at::Tensor head(DeviceModel* model, const DeviceSlice& slice, const PassOptions& pass,
                const at::Tensor& normalised, StepSums* sums) {
  const at::Tensor losses = at::empty({slice.T}, model->gradients.dense.options());
  const at::Tensor z_squares = at::empty({slice.T}, losses.options());
  const at::Tensor d = at::empty(normalised.sizes(), normalised.options());
  for (int64_t begin = 0; begin < slice.T; begin += model->head_rows) {
    const int64_t end = std::min(slice.T, begin + model->head_rows);
    const at::Tensor x = normalised.slice(0, begin, end);
    const at::Tensor logits = linear(x, model->weights.head);
    cross_entropy_and_gradient(logits, slice.labels.slice(0, begin, end),
                               static_cast<float>(1.0 / pass.loss.divisor),
                               static_cast<float>(pass.loss.lm_z_weight),
                               losses.slice(0, begin, end), z_squares.slice(0, begin, end));
    d.slice(0, begin, end).copy_(linear_input_gradient(logits, model->weights.head));
    add_weight_gradient(model->weight_gradients.head, logits, x);
  }
  add_head_sums(losses, z_squares, slice.labels, sums->head());
  return d;
}

// The final norm and the head; answers the gradient of the residual stream S [T, D].
at::Tensor head_backward(DeviceModel* model, const DeviceSlice& slice, const PassOptions& pass,
                         const at::Tensor& last, StepSums* sums) {
  const at::Tensor normalised = at::empty(last.sizes(), last.options());
  const at::Tensor reciprocal = at::empty({slice.T}, model->gradients.dense.options());
  rms_norm(last, model->weights.final_norm, static_cast<float>(model->config.norm_epsilon),
           normalised, reciprocal);
  const at::Tensor d_normalised = head(model, slice, pass, normalised, sums);
  at::Tensor d = at::zeros_like(last);
  rms_norm_backward(last, model->weights.final_norm, reciprocal, d_normalised, d,
                    model->weight_gradients.final_norm);
  return d;
}

// Where the losses of a MoE layer are counted: layers without experts have no place in the sums.
struct LayerPlace {
  int64_t layer, moe_layer;
};

// The weighted auxiliary losses of a layer; adds what its router saw to the sums.
RouterLosses router_losses(const DeviceModel& model, const DeviceSlice& slice,
                           const PassOptions& pass, LayerPlace at, const Routing& routing,
                           BalanceCounts* counts, StepSums* sums) {
  const RouterLossWeights weights =
      router_loss_weights(model.config, model.contract, pass.loss.divisor);
  RouterLosses losses;
  losses.balance = counts->score_gradient(at.moe_layer, model.config.routed_experts(at.layer),
                                          model.config.routed_top_k(at.layer), pass.loss.divisor);
  add_layer_sums({losses.balance, routing.score_sum, routing.counts,
                  routing.z_logsumexp(model.contract), loss_labels(model.contract, slice),
                  routing.token_entropy, routing.document_entropy, routing.pool_sizes},
                 sums->layer(at.moe_layer));
  losses.balance.mul_(weights.balance);
  losses.z = weights.z;
  return losses;
}

// From the head down to the embedding.
void backward(DeviceModel* model, const DeviceSlice& slice, const PassOptions& pass,
              BalanceCounts* counts, StepSums* sums, Traffic* traffic, SliceKept* kept) {
  const ModelConfig& config = model->config;
  BlockContext context = context_of(*model, pass);
  ready_gradients(pass, model->layout.head_bucket());
  const at::Tensor d = head_backward(model, slice, pass, kept->last, sums);
  announce(pass.after_gradients, model->layout.head_bucket());
  int64_t moe_layer = config.moe_layers();
  for (int64_t layer = config.n_layers - 1; layer >= 0; --layer) {
    BlockKept* block = &kept->blocks[layer];
    RouterLosses losses;
    if (!config.is_dense(layer)) {
      --moe_layer;
      losses = router_losses(*model, slice, pass, {layer, moe_layer}, kept->routings[moe_layer],
                             counts, sums);
    }
    context.counters = counters_of(traffic, layer);
    if (pass.settings.recompute == Recompute::kBlock) {
      block_forward(context, model->weights.layers[layer], slice, layer, block);
    }
    context.onto_expert_gradients = ready_gradients(pass, layer_bucket(layer));
    block_backward(context, model->weights.layers[layer], model->weight_gradients.layers[layer],
                   slice, losses, d, block);
    announce(pass.after_gradients, layer_bucket(layer));
  }
  ready_gradients(pass, kEmbeddingBucket);
  embed_backward(slice.sorted_tokens, slice.token_order, d, model->weight_gradients.embedding);
  announce(pass.after_gradients, kEmbeddingBucket);
}

}  // namespace

DeviceModel::DeviceModel(const ModelConfig& c, const RoutingContract& r,
                         const GridPosition& position, int64_t positions, at::Device d,
                         at::ScalarType t, const ExpertOrder& order, GradientMemory memory)
    : config(checked(c, t, d)),
      contract(r),
      layout(make_layout(c, position, order)),
      device(d),
      type(t),
      gradient_layout(memory == GradientMemory::kParts ? fold_buckets(layout) : layout),
      parameters(device_buffers(layout, d, t)),
      gradients(memory == GradientMemory::kNone ? FlatBuffers()
                                                : device_buffers(gradient_layout, d, at::kFloat)),
      weights(bind_tensors(config, layout, parameters)),
      weight_gradients(memory == GradientMemory::kNone
                           ? ModelTensors()
                           : bind_tensors(config, gradient_layout, gradients)),
      rope(rope_tensors(config, positions, d)) {
  for (const ExpertPlacement& placement : layout.placements) {
    placements.push_back(make_device_placement(placement, d));
  }
}

void DeviceModel::reserve_positions(int64_t wanted) {
  if (wanted <= positions()) return;
  rope = rope_tensors(config, std::max(wanted, 2 * positions()), device);
}

void load_parameters(const FlatBuffers& host, DeviceModel* model) {
  model->parameters.dense.copy_(host.dense);
  model->parameters.experts.copy_(host.experts);
}

void forward_backward(DeviceModel* model, const std::vector<DeviceSlice>& slices,
                      const PassOptions& pass, BalanceCounts* counts, StepSums* sums,
                      Traffic* traffic, Routings* routings) {
  TORCH_CHECK(!slices.empty(), "a micro-batch without slices: give one without rows");
  TORCH_CHECK(pass.settings.subsets.empty() && !pass.settings.routed_off && pass.cache == nullptr,
              "settings of an evaluation in a training pass");
  std::vector<SliceKept> kept;
  int64_t tokens = 0;
  for (const DeviceSlice& slice : slices) {
    kept.push_back(forward(*model, slice, pass, traffic));
    tokens += model->contract.losses_over == LossTokens::kAll ? slice.T : slice.num_labels;
  }
  std::vector<const Routing*> of_all;  // [slices x MoE layers]
  for (const SliceKept& slice : kept) {
    for (const Routing& routing : slice.routings) of_all.push_back(&routing);
  }
  // Counts travel behind the head and the cross-entropy; the backward pass is the first to need
  // them.
  counts->start(*pass.world, of_all, tokens);
  for (size_t s = 0; s < slices.size(); ++s) {
    backward(model, slices[s], pass, counts, sums, traffic, &kept[s]);
  }
  if (routings == nullptr) return;
  routings->clear();
  for (SliceKept& slice : kept) routings->push_back(std::move(slice.routings));
}

}  // namespace emo::device
