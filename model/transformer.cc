#include "model/transformer.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "model/host/embedding.h"
#include "model/host/rms_norm.h"

namespace emo {
namespace {

BlockContext block_context(const Model& model, const PassOptions& options) {
  return {model.config, model.contract, model.rope, options};
}

void announce(const std::function<void(size_t)>& listener, size_t bucket) {
  if (listener) listener(bucket);
}

// Whether the bucket's gradients of routed experts are added to.
bool ready_gradients(const PassOptions& options, size_t bucket) {
  return options.before_gradients == nullptr || options.before_gradients(bucket);
}

// Adds what a layer's router saw to the sums; `score_gradient` is the balance loss's, unweighted.
void add_routing(const Routing& routing, const std::vector<float>& score_gradient, int64_t tokens,
                 RouterSums* sums) {
  for (size_t e = 0; e < routing.counts.size(); ++e) {
    sums->balance += static_cast<double>(score_gradient[e]) * routing.score_sum[e];
    sums->counts[e] += static_cast<double>(routing.counts[e]);
  }
  sums->z_squares += routing.z_squares;
  sums->token_entropy += routing.token_entropy;
  sums->tokens += static_cast<double>(tokens);
  sums->document_entropy += routing.document_entropy;
  sums->pool_size += routing.pool_size;
  sums->documents += static_cast<double>(routing.documents);
}

// Moves what the exchange counted to the layer that it was counted for.
void take_counters(int64_t layer, PassBuffers* buffers) {
  if (static_cast<int64_t>(buffers->traffic.size()) <= layer) buffers->traffic.resize(layer + 1);
  buffers->traffic[layer] +=
      std::exchange(buffers->block.feed_forward.exchange.counters, ExchangeCounters());
}

// One block's forward pass from x to y; what it keeps goes into `kept`.
void run_block(const Model& model, const BlockContext& context, const Slice& slice, int64_t layer,
               const at::Tensor& x, BlockActivations* kept, PassBuffers* buffers, at::Tensor* y) {
  kept->x = x;
  block_forward(context, model.weights.layers[layer], slice, layer, kept, &buffers->block, y);
  take_counters(layer, buffers);
}

}  // namespace

Model::Model(const ModelConfig& c, const RoutingContract& r, int64_t positions,
             const GridPosition& position, const ExpertOrder& order)
    : config(c),
      contract(r),
      layout(make_layout(c, position, order)),
      parameters(make_buffers(layout)),
      weights(bind_weights(config, layout, parameters)),
      rope(positions, c.head_dim(), c.rope_theta) {}

void Model::reserve_positions(int64_t positions) {
  if (positions > rope.positions()) {
    rope =
        RopeTable(std::max(positions, 2 * rope.positions()), config.head_dim(), config.rope_theta);
  }
}

Gradients::Gradients(const Model& model, GradientMemory memory)
    : layout(memory == GradientMemory::kParts ? fold_buckets(model.layout) : model.layout),
      buffers(make_buffers(layout)),
      views(bind_weights(model.config, layout, buffers)) {}

void forward_embedding(const Model& model, const Slice& slice, at::Tensor* x) {
  embed(slice.num_tokens(), model.config.vocab_size, model.config.d_model,
        slice.tokens.const_data_ptr<int32_t>(), model.weights.embedding,
        x->mutable_data_ptr<float>());
}

void forward_block(const Model& model, const Slice& slice, const PassOptions& options,
                   int64_t layer, const at::Tensor& x, BlockActivations* kept, PassBuffers* buffers,
                   at::Tensor* y) {
  run_block(model, block_context(model, options), slice, layer, x, kept, buffers, y);
}

void forward(const Model& model, const Slice& slice, const PassOptions& options, Activations* a,
             PassBuffers* buffers) {
  const ModelConfig& config = model.config;
  const int64_t T = slice.num_tokens();
  const int64_t D = config.d_model;
  const std::vector<ExpertSubset>& subsets = options.settings.subsets;
  TORCH_CHECK(subsets.empty() || static_cast<int64_t>(subsets.size()) == config.n_layers,
              subsets.size(), " expert subsets for ", config.n_layers, " layers");
  const BlockContext context = block_context(model, options);
  // Where a layer's output goes: the next one's input.
  const auto output_of = [&](int64_t layer) {
    return layer + 1 < config.n_layers ? &a->blocks[layer + 1].x : &a->last;
  };
  a->blocks.resize(config.n_layers);
  shape_buffer(&a->last, {T, D});
  shape_buffer(&a->reciprocal, {T});

  for (BlockActivations& block : a->blocks) shape_buffer(&block.x, {T, D});
  announce(options.before_parameters, kEmbeddingBucket);
  forward_embedding(model, slice, output_of(-1));
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (options.profile != nullptr) options.profile->set_layer(layer);
    announce(options.before_parameters, layer_bucket(layer));
    BlockActivations& block = a->blocks[layer];
    const bool again = options.settings.recompute == Recompute::kBlock;
    BlockActivations* kept = again ? &buffers->recomputed : &block;
    at::Tensor* y = output_of(layer);
    run_block(model, context, slice, layer, block.x, kept, buffers, y);
    if (again && !config.is_dense(layer)) {
      std::swap(block.moe.routing, buffers->recomputed.moe.routing);
    }
  }
  if (options.profile != nullptr) options.profile->set_layer(-1);
  announce(options.before_parameters, model.layout.head_bucket());
  with_element(options.settings.precision, [&](auto element) {
    rms_norm(T, D, a->last.const_data_ptr<float>(), model.weights.final_norm,
             static_cast<float>(config.norm_epsilon),
             shape_stored<decltype(element)>(&a->normalised, {T, D}),
             a->reciprocal.mutable_data_ptr<float>());
  });
}

namespace {

// The head's loss and gradients; leaves the gradient of the residual stream in buffers->d.
void head_backward(const Model& model, const Slice& slice, const PassOptions& options,
                   const Activations& a, PassBuffers* buffers, Gradients* gradients,
                   LossSums* sums) {
  const int64_t T = slice.num_tokens();
  const int64_t D = model.config.d_model;
  const Timed timed(options.profile, Work::kHead);
  zero_buffer(shape_buffer(&buffers->d, {T, D}));
  shape_buffer(&buffers->d_normalised, {T, D});
  const LmLoss lm = with_element(options.settings.precision, [&](auto element) {
    return lm_loss_and_gradients(
        model.weights.head, gradients->views.head, T,
        a.normalised.const_data_ptr<decltype(element)>(), slice.labels.const_data_ptr<int32_t>(),
        static_cast<float>(1.0 / options.loss.divisor),
        static_cast<float>(options.loss.lm_z_weight),
        buffers->d_normalised.mutable_data_ptr<float>(), &buffers->block.feed_forward.scratch);
  });
  sums->cross_entropy += lm.cross_entropy;
  sums->z_squares += lm.z_squares;
  sums->labels += static_cast<double>(lm.labels);
  rms_norm_backward(
      T, D, a.last.const_data_ptr<float>(), model.weights.final_norm,
      a.reciprocal.const_data_ptr<float>(), buffers->d_normalised.const_data_ptr<float>(),
      buffers->d.mutable_data_ptr<float>(), gradients->views.final_norm, &buffers->block.partial);
}

// Where the losses of a MoE layer are counted: layers without experts have no place in the sums.
struct LayerPlace {
  int64_t layer, moe_layer;
};

// The weighted auxiliary losses of a layer; adds what its router saw to the sums.
RouterLosses router_losses(const Model& model, double divisor, LayerPlace at,
                           const Routing& routing, int64_t tokens, BalanceCounts* counts,
                           LossSums* sums) {
  const RouterLossWeights weights = router_loss_weights(model.config, model.contract, divisor);
  RouterLosses losses;
  losses.balance = counts->score_gradient(at.moe_layer, model.config.routed_experts(at.layer),
                                          model.config.routed_top_k(at.layer), divisor);
  add_routing(routing, losses.balance, tokens, &sums->layers[at.moe_layer]);
  for (float& b : losses.balance) b *= weights.balance;
  losses.z = weights.z;
  return losses;
}

// From the head down to the embedding.
void backward(const Model& model, const Slice& slice, const PassOptions& options,
              BalanceCounts* counts, Activations* a, PassBuffers* buffers, Gradients* gradients,
              LossSums* sums) {
  const ModelConfig& config = model.config;
  BlockContext context = block_context(model, options);
  const int64_t T = slice.num_tokens();
  const int64_t D = config.d_model;
  ready_gradients(options, model.layout.head_bucket());
  head_backward(model, slice, options, *a, buffers, gradients, sums);
  announce(options.after_gradients, model.layout.head_bucket());

  int64_t moe_layer = config.moe_layers();
  for (int64_t layer = config.n_layers - 1; layer >= 0; --layer) {
    if (options.profile != nullptr) options.profile->set_layer(layer);
    BlockActivations* kept = &a->blocks[layer];
    RouterLosses losses;
    if (!config.is_dense(layer)) {
      losses = router_losses(model, options.loss.divisor, {layer, --moe_layer}, kept->moe.routing,
                             T, counts, sums);
    }
    if (options.settings.recompute == Recompute::kBlock) {
      kept = &buffers->recomputed;
      shape_buffer(&buffers->ignored, {T, D});
      run_block(model, context, slice, layer, a->blocks[layer].x, kept, buffers, &buffers->ignored);
    }
    context.onto_expert_gradients = ready_gradients(options, layer_bucket(layer));
    block_backward(context, model.weights.layers[layer], slice, losses, kept, &buffers->block,
                   &gradients->views.layers[layer], &buffers->d);
    take_counters(layer, buffers);
    announce(options.after_gradients, layer_bucket(layer));
  }
  if (options.profile != nullptr) options.profile->set_layer(-1);
  ready_gradients(options, kEmbeddingBucket);
  {
    const Timed timed(options.profile, Work::kOther);
    embed_backward(T, D, slice.tokens.const_data_ptr<int32_t>(), buffers->d.const_data_ptr<float>(),
                   gradients->views.embedding);
  }
  announce(options.after_gradients, kEmbeddingBucket);
}

}  // namespace

void forward_backward(const Model& model, const MicroBatch& slices, const PassOptions& options,
                      BalanceCounts* counts, PassMemory* memory, Gradients* gradients,
                      LossSums* sums) {
  TORCH_CHECK(!slices.empty(), "a micro-batch without slices: give one without rows");
  memory->slices.resize(slices.size());
  std::vector<const Routing*> routings;  // [slices x MoE layers]
  int64_t tokens = 0;
  for (size_t s = 0; s < slices.size(); ++s) {
    Activations* a = &memory->slices[s];
    forward(model, slices[s], options, a, &memory->buffers);
    for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
      if (!model.config.is_dense(layer)) routings.push_back(&a->blocks[layer].moe.routing);
    }
    tokens += model.contract.losses_over == LossTokens::kAll ? slices[s].num_tokens()
                                                             : slices[s].num_labels();
  }
  // Counts travel behind the head and the cross-entropy; the backward pass is the first to need
  // them.
  counts->start(*options.world, routings, tokens);
  for (size_t s = 0; s < slices.size(); ++s) {
    backward(model, slices[s], options, counts, &memory->slices[s], &memory->buffers, gradients,
             sums);
  }
}

}  // namespace emo
