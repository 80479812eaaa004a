#include "model/transformer.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "model/host/backend.h"

namespace emo {
namespace {

std::shared_ptr<Backend> or_host(std::shared_ptr<Backend> backend) {
  return backend != nullptr ? std::move(backend) : host_backend();
}

// The config, where the back end computes it.
const ModelConfig& checked(const ModelConfig& config, const Backend& backend) {
  const std::vector<Limit> limits = backend.limits(config);
  TORCH_CHECK(limits.empty(), limits.front().why);
  return config;
}

std::vector<LayerPlacement> placements_of(const ParameterLayout& layout, at::Device device) {
  std::vector<LayerPlacement> placements;
  for (const ExpertPlacement& placement : layout.placements) {
    placements.push_back(make_layer_placement(placement, device));
  }
  return placements;
}

BlockContext block_context(const Model& model, const PassOptions& options) {
  const auto subsets = static_cast<int64_t>(options.settings.subsets.size());
  TORCH_CHECK(subsets == 0 || subsets == model.config.n_layers, subsets, " expert subsets for ",
              model.config.n_layers, " layers");
  return {*model.backend,
          model.config,
          model.contract,
          model.rope,
          model.placements,
          options,
          model.backend->stored(options.settings.precision)};
}

void announce(const std::function<void(size_t)>& listener, size_t bucket) {
  if (listener) listener(bucket);
}

void set_layer(const PassOptions& options, int64_t layer) {
  if (options.profile != nullptr) options.profile->set_layer(layer);
}

// Whether the bucket's gradients of routed experts are added to.
bool ready_gradients(const PassOptions& options, size_t bucket) {
  return options.before_gradients == nullptr || options.before_gradients(bucket);
}

// Moves what the exchange counted to the layer that it was counted for.
void take_counters(const Model& model, int64_t layer, PassBuffers* buffers) {
  if (static_cast<int64_t>(buffers->traffic.size()) <= layer) buffers->traffic.resize(layer + 1);
  buffers->traffic[layer] += model.backend->take_counters();
}

// One block's forward pass from x to y; what it keeps goes into `kept`.
void run_block(const Model& model, const BlockContext& context, const PlacedSlice& slice,
               int64_t layer, const at::Tensor& x, BlockActivations* kept, PassBuffers* buffers,
               at::Tensor* y) {
  kept->x = x;
  block_forward(context, model.weights.layers[layer], slice, layer, kept, &buffers->block, y);
  take_counters(model, layer, buffers);
  give_back(*model.backend, &buffers->block);
}

void give_back_all_but_routing(const Model& model, BlockActivations* kept) {
  Routing routing = std::move(kept->moe.routing);
  give_back(*model.backend, kept);
  kept->moe.routing = std::move(routing);
}

}  // namespace

Model::Model(const ModelConfig& c, const RoutingContract& r, int64_t positions,
             const GridPosition& position, const ExpertOrder& order, std::shared_ptr<Backend> b)
    : config(c),
      contract(r),
      backend(or_host(std::move(b))),
      layout(make_layout(checked(config, *backend), position, order)),
      placements(placements_of(layout, backend->parameters().device())),
      parameters(make_buffers(layout, backend->parameters())),
      weights(bind_weights(config, layout, parameters)),
      rope(make_rope_table(positions, c.head_dim(), c.rope_theta, device())) {}

void Model::reserve_positions(int64_t positions) {
  if (positions <= rope.positions()) return;
  rope = make_rope_table(std::max(positions, 2 * rope.positions()), config.head_dim(),
                         config.rope_theta, device());
}

void load_parameters(const FlatBuffers& host, Model* model) {
  model->parameters.dense.copy_(host.dense);
  model->parameters.experts.copy_(host.experts);
}

Gradients::Gradients(const Model& model, GradientMemory memory)
    : layout(memory == GradientMemory::kParts ? fold_buckets(model.layout) : model.layout),
      buffers(make_buffers(layout, model.parameters.dense.options().dtype(at::kFloat))),
      views(bind_weights(model.config, layout, buffers)) {}

PlacedSlice place_slice(const Model& model, const Slice& slice, const PassSettings& settings) {
  PlacedSlice placed =
      place(slice, model.config,
            {settings.pool_of(model.contract), model.contract.pool_draw, settings.seed},
            model.rope.positions(), model.device());
  if (model.contract.jitter > 0) {
    placed.sequence_index = to_device(slice.sequence_index, model.device());
  }
  return placed;
}

void forward_embedding(const Model& model, const PlacedSlice& slice, at::Tensor* x) {
  model.backend->embed(slice.tokens, model.weights.embedding, x);
}

void forward_block(const Model& model, const PlacedSlice& slice, const PassOptions& options,
                   int64_t layer, const at::Tensor& x, BlockActivations* kept, PassBuffers* buffers,
                   at::Tensor* y) {
  run_block(model, block_context(model, options), slice, layer, x, kept, buffers, y);
}

void forward(const Model& model, const Slice& slice, const PassOptions& options, Activations* a,
             PassBuffers* buffers) {
  const ModelConfig& config = model.config;
  const BlockContext context = block_context(model, options);
  const bool again = options.settings.recompute == Recompute::kBlock;
  // Where a layer's output goes: the next one's input.
  const auto output_of = [&](int64_t layer) {
    return layer + 1 < config.n_layers ? &a->blocks[layer + 1].x : &a->last;
  };
  a->slice = place_slice(model, slice, options.settings);
  a->blocks.resize(config.n_layers);
  announce(options.before_parameters, kEmbeddingBucket);
  forward_embedding(model, a->slice, output_of(-1));
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    set_layer(options, layer);
    announce(options.before_parameters, layer_bucket(layer));
    BlockActivations& block = a->blocks[layer];
    BlockActivations* kept = again ? &buffers->recomputed : &block;
    run_block(model, context, a->slice, layer, block.x, kept, buffers, output_of(layer));
    if (!again) continue;
    if (!config.is_dense(layer)) std::swap(block.moe.routing, kept->moe.routing);
    give_back(*model.backend, kept);
  }
  set_layer(options, -1);
  announce(options.before_parameters, model.layout.head_bucket());
}

namespace {

// The final norm, the head's loss and its gradients; leaves the gradient of the residual stream in
// buffers->d.
void head_backward(const Model& model, const PassOptions& options, const Activations& a,
                   PassBuffers* buffers, const Gradients& gradients, const StepSums& sums) {
  Backend& backend = *model.backend;
  const Timed timed(options.profile, Work::kHead);
  backend.rms_norm(a.last, model.weights.final_norm, model.config.norm_epsilon,
                   backend.stored(options.settings.precision), &buffers->normalised);
  backend.zeros_like(a.last, &buffers->d);
  backend.head_loss(buffers->normalised.y, a.slice.labels, model.weights.head,
                    static_cast<float>(1.0 / options.loss.divisor),
                    static_cast<float>(options.loss.lm_z_weight), &buffers->d_normalised,
                    gradients.views.head, sums.head());
  backend.rms_norm_backward(a.last, model.weights.final_norm, buffers->normalised,
                            buffers->d_normalised, buffers->d, gradients.views.final_norm);
  give_back(backend, &buffers->normalised);
  give_back(backend, &buffers->d_normalised);
}

// Where the losses of a MoE layer are counted: layers without experts have no place in the sums.
struct LayerPlace {
  int64_t layer, moe_layer;
};

// The weighted auxiliary losses of a layer; adds what its router saw to the sums.
RouterLosses router_losses(const Model& model, const LossOptions& loss, LayerPlace at,
                           const PlacedSlice& slice, const Routing& routing, BalanceCounts* counts,
                           const StepSums& sums) {
  const RouterLossWeights weights = router_loss_weights(model.config, model.contract, loss.divisor);
  RouterLosses losses;
  if (model.contract.balance_scope == BalanceScope::kDocument) {
    model.backend->document_balance_gradient(routing, loss.documents, &losses.balance);
  } else {
    const BalanceCounts::OfLayer counted =
        counts->of_layer(at.moe_layer, model.config.routed_experts(at.layer));
    model.backend->balance_gradient(counted.counts, counted.tokens,
                                    model.config.routed_top_k(at.layer), loss.divisor,
                                    &losses.balance);
  }
  const bool labelled = model.contract.losses_over == LossTokens::kLabelled;
  model.backend->add_router_sums(routing, model.contract, losses.balance,
                                 labelled ? slice.labels : at::Tensor(), sums.layer(at.moe_layer));
  losses.balance.mul_(weights.balance);
  losses.z = weights.z;
  return losses;
}

// From the head down to the embedding.
void backward(const Model& model, const PassOptions& options, BalanceCounts* counts, Activations* a,
              PassBuffers* buffers, const Gradients& gradients, const StepSums& sums) {
  const ModelConfig& config = model.config;
  const Backend& backend = *model.backend;
  BlockContext context = block_context(model, options);
  ready_gradients(options, model.layout.head_bucket());
  head_backward(model, options, *a, buffers, gradients, sums);
  give_back(backend, &a->last);
  announce(options.after_gradients, model.layout.head_bucket());

  int64_t moe_layer = config.moe_layers();
  for (int64_t layer = config.n_layers - 1; layer >= 0; --layer) {
    set_layer(options, layer);
    BlockActivations* kept = &a->blocks[layer];
    RouterLosses losses;
    if (!config.is_dense(layer)) {
      losses = router_losses(model, options.loss, {layer, --moe_layer}, a->slice, kept->moe.routing,
                             counts, sums);
    }
    if (options.settings.recompute == Recompute::kBlock) {
      kept = &buffers->recomputed;
      run_block(model, context, a->slice, layer, a->blocks[layer].x, kept, buffers,
                &buffers->ignored);
      give_back(backend, &buffers->ignored);
    }
    context.onto_expert_gradients = ready_gradients(options, layer_bucket(layer));
    block_backward(context, model.weights.layers[layer], a->slice, losses, kept, &buffers->block,
                   gradients.views.layers[layer], buffers->d);
    take_counters(model, layer, buffers);
    give_back(backend, &buffers->block);
    give_back(backend, &buffers->recomputed);
    give_back_all_but_routing(model, &a->blocks[layer]);
    announce(options.after_gradients, layer_bucket(layer));
  }
  set_layer(options, -1);
  ready_gradients(options, kEmbeddingBucket);
  {
    const Timed timed(options.profile, Work::kOther);
    model.backend->embed_backward(a->slice.tokens, buffers->d, gradients.views.embedding);
  }
  give_back(backend, &buffers->d);
  give_back(backend, &a->slice);
  announce(options.after_gradients, kEmbeddingBucket);
}

}  // namespace

void forward_backward(const Model& model, const MicroBatch& slices, const PassOptions& options,
                      BalanceCounts* counts, PassMemory* memory, const Gradients& gradients,
                      const StepSums& sums) {
  TORCH_CHECK(!slices.empty(), "a micro-batch without slices: give one without rows");
  TORCH_CHECK(
      options.settings.subsets.empty() && !options.settings.routed_off && options.cache == nullptr,
      "settings of an evaluation in a training pass");
  memory->slices.resize(slices.size());
  std::vector<const Routing*> routings;  // [slices x MoE layers]
  int64_t tokens = 0;
  for (size_t s = 0; s < slices.size(); ++s) {
    Activations* a = &memory->slices[s];
    forward(model, slices[s], options, a, &memory->buffers);
    for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
      if (!model.config.is_dense(layer)) routings.push_back(&a->blocks[layer].moe.routing);
    }
    tokens += model.contract.losses_over == LossTokens::kAll ? a->slice.T : a->slice.num_labels;
  }
  // Counts travel behind the head and the cross-entropy; the backward pass is the first to need
  // them.
  counts->start(*options.world, routings, tokens);
  for (size_t s = 0; s < slices.size(); ++s) {
    backward(model, options, counts, &memory->slices[s], &memory->buffers, gradients, sums);
  }
}

}  // namespace emo
