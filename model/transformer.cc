#include "model/transformer.h"

#include <c10/util/Exception.h>

#include "model/host/embedding.h"
#include "model/host/rms_norm.h"
#include "model/pool_sizes.h"

namespace emo {
namespace {

MoeContext moe_context(const Model& model, const RoutingContract& contract, const MicroBatch& batch,
                       const PassOptions& options) {
  const bool labelled = contract.losses_over == LossTokens::kLabelled;
  return {&model.config,
          &contract,
          options.ep,
          options.mode,
          options.routed_off,
          options.want_contributions,
          labelled ? batch.labels : at::Tensor(),
          options.recompute,
          options.precision,
          options.profile};
}

void announce(const std::function<void(size_t)>& listener, size_t bucket) {
  if (listener) listener(bucket);
}

// Whether the bucket's gradients of routed experts are added to.
bool ready_gradients(const PassOptions& options, size_t bucket) {
  return options.before_gradients == nullptr || options.before_gradients(bucket);
}

// The contract with the pools of this pass.
RoutingContract contract_of(const Model& model, const PassOptions& options) {
  RoutingContract contract = model.contract;
  contract.pool = options.pool;
  return contract;
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
void run_block(const Model& model, const MoeContext& context, const RopeTable& rope,
               const MicroBatch& batch, const PassOptions& options, int64_t layer,
               const at::Tensor& x, const at::Tensor& y, BlockActivations* kept,
               PassBuffers* buffers) {
  const PoolPolicy& pool = context.contract->pool;
  kept->x = x;
  block_forward(
      context, model.weights.layers[layer], rope, batch,
      draw_pool_sizes(pool, context.contract->pool_draw, options.seed, batch.sequence_index,
                      batch.ordinal, layer, model.config.routed_experts(layer)),
      options.subsets.empty() ? ExpertSubset() : options.subsets[layer], options.cache, layer, y,
      kept, &buffers->block);
  take_counters(layer, buffers);
}

}  // namespace

Model::Model(const ModelConfig& c, const RoutingContract& r, const GridPosition& position,
             const ExpertOrder& order)
    : config(c),
      contract(r),
      layout(make_layout(c, position, order)),
      parameters(make_buffers(layout)),
      weights(bind_weights(config, layout, parameters)) {}

Gradients::Gradients(const Model& model, GradientMemory memory)
    : layout(memory == GradientMemory::kParts ? fold_buckets(model.layout) : model.layout),
      buffers(make_buffers(layout)),
      views(bind_weights(model.config, layout, buffers)) {}

void forward_embedding(const Model& model, const MicroBatch& batch, const at::Tensor& x) {
  embed(batch.num_tokens(), model.config.vocab_size, model.config.d_model,
        batch.tokens.const_data_ptr<int32_t>(), model.weights.embedding,
        x.mutable_data_ptr<float>());
}

void forward_block(const Model& model, const RopeTable& rope, const MicroBatch& batch,
                   const PassOptions& options, int64_t layer, const at::Tensor& x,
                   const at::Tensor& y, BlockActivations* kept, PassBuffers* buffers) {
  const RoutingContract contract = contract_of(model, options);
  run_block(model, moe_context(model, contract, batch, options), rope, batch, options, layer, x, y,
            kept, buffers);
}

void forward(const Model& model, const RopeTable& rope, const MicroBatch& batch,
             const PassOptions& options, Activations* a, PassBuffers* buffers) {
  const ModelConfig& config = model.config;
  const int64_t T = batch.num_tokens();
  const int64_t D = config.d_model;
  TORCH_CHECK(
      options.subsets.empty() || static_cast<int64_t>(options.subsets.size()) == config.n_layers,
      options.subsets.size(), " expert subsets for ", config.n_layers, " layers");
  const RoutingContract contract = contract_of(model, options);
  const MoeContext context = moe_context(model, contract, batch, options);
  a->blocks.resize(config.n_layers);
  shape_buffer(&a->last, {T, D});
  shape_buffer(&a->reciprocal, {T});

  for (BlockActivations& block : a->blocks) shape_buffer(&block.x, {T, D});
  announce(options.before_parameters, kEmbeddingBucket);
  forward_embedding(model, batch, config.n_layers > 0 ? a->blocks[0].x : a->last);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (options.profile != nullptr) options.profile->set_layer(layer);
    announce(options.before_parameters, layer_bucket(layer));
    BlockActivations& block = a->blocks[layer];
    const bool again = options.recompute == Recompute::kBlock;
    BlockActivations* kept = again ? &buffers->recomputed : &block;
    const at::Tensor& y = layer + 1 < config.n_layers ? a->blocks[layer + 1].x : a->last;
    run_block(model, context, rope, batch, options, layer, block.x, y, kept, buffers);
    if (options.after_block) options.after_block(layer, *kept, y);
    if (again && !config.is_dense(layer)) {
      std::swap(block.moe.routing, buffers->recomputed.moe.routing);
    }
  }
  if (options.cache != nullptr) {
    advance(options.cache, batch.attention_ends.const_data_ptr<int32_t>());
  }
  if (options.profile != nullptr) options.profile->set_layer(-1);
  announce(options.before_parameters, model.layout.head_bucket());
  with_element(options.precision, [&](auto element) {
    rms_norm(T, D, a->last.const_data_ptr<float>(), model.weights.final_norm,
             static_cast<float>(config.norm_epsilon),
             shape_stored<decltype(element)>(&a->normalised, {T, D}),
             a->reciprocal.mutable_data_ptr<float>());
  });
}

namespace {

// The head's loss and gradients; leaves the gradient of the residual stream in buffers->d.
void head_backward(const Model& model, const MicroBatch& batch, const PassOptions& options,
                   const LossOptions& loss, const Activations& a, Gradients* gradients,
                   LossSums* sums, PassBuffers* buffers) {
  const int64_t T = batch.num_tokens();
  const int64_t D = model.config.d_model;
  const Timed timed(options.profile, Work::kHead);
  zero_buffer(shape_buffer(&buffers->d, {T, D}));
  shape_buffer(&buffers->d_normalised, {T, D});
  const LmLoss lm = with_element(options.precision, [&](auto element) {
    return lm_loss_and_gradients(
        model.weights.head, gradients->views.head, T,
        a.normalised.const_data_ptr<decltype(element)>(), batch.labels.const_data_ptr<int32_t>(),
        static_cast<float>(1.0 / loss.divisor), static_cast<float>(loss.lm_z_weight),
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

// What the auxiliary losses add to a layer's router gradients.
struct RouterLosses {
  std::vector<float> balance;  // [E]
  float z = 0;
};
RouterLosses router_losses(const Model& model, const LossOptions& loss, int64_t layer,
                           int64_t moe_layer, const Routing& routing, int64_t tokens,
                           BalanceCounts* counts, LossSums* sums) {
  const auto moe_layers = static_cast<double>(model.config.moe_layers());
  RouterLosses losses;
  losses.balance = counts->score_gradient(moe_layer, model.config.routed_experts(layer),
                                          model.config.routed_top_k(layer), loss.divisor);
  add_routing(routing, losses.balance, tokens, &sums->layers[moe_layer]);
  for (float& b : losses.balance) {
    b *= static_cast<float>(model.contract.balance_weight / moe_layers);
  }
  losses.z = static_cast<float>(model.contract.z_weight / moe_layers / loss.divisor);
  return losses;
}

// From the head down to the embedding.
void backward(const Model& model, const RopeTable& rope, const MicroBatch& batch,
              const PassOptions& options, const LossOptions& loss, BalanceCounts* counts,
              Gradients* gradients, LossSums* sums, Activations* a, PassBuffers* buffers) {
  const ModelConfig& config = model.config;
  const RoutingContract contract = contract_of(model, options);
  MoeContext context = moe_context(model, contract, batch, options);
  const int64_t T = batch.num_tokens();
  const int64_t D = config.d_model;
  ready_gradients(options, model.layout.head_bucket());
  head_backward(model, batch, options, loss, *a, gradients, sums, buffers);
  announce(options.after_gradients, model.layout.head_bucket());

  int64_t moe_layer = config.moe_layers();
  for (int64_t layer = config.n_layers - 1; layer >= 0; --layer) {
    if (options.profile != nullptr) options.profile->set_layer(layer);
    BlockActivations* kept = &a->blocks[layer];
    RouterLosses losses;
    if (!config.is_dense(layer)) {
      losses = router_losses(model, loss, layer, --moe_layer, kept->moe.routing, T, counts, sums);
    }
    if (options.recompute == Recompute::kBlock) {
      kept = &buffers->recomputed;
      run_block(model, context, rope, batch, options, layer, a->blocks[layer].x,
                shape_buffer(&buffers->ignored, {T, D}), kept, buffers);
    }
    context.onto_expert_gradients = ready_gradients(options, layer_bucket(layer));
    block_backward(context, model.weights.layers[layer], gradients->views.layers[layer], rope,
                   batch, losses.balance, losses.z, buffers->d, kept, &buffers->block);
    take_counters(layer, buffers);
    announce(options.after_gradients, layer_bucket(layer));
  }
  if (options.profile != nullptr) options.profile->set_layer(-1);
  ready_gradients(options, kEmbeddingBucket);
  {
    const Timed timed(options.profile, Work::kOther);
    embed_backward(T, D, batch.tokens.const_data_ptr<int32_t>(), buffers->d.const_data_ptr<float>(),
                   gradients->views.embedding);
  }
  announce(options.after_gradients, kEmbeddingBucket);
}

}  // namespace

void forward_backward(const Model& model, const RopeTable& rope,
                      const std::vector<MicroBatch>& slices, const PassOptions& options,
                      const LossOptions& loss, Communicator& world, BalanceCounts* counts,
                      Gradients* gradients, LossSums* sums, PassMemory* memory) {
  TORCH_CHECK(!slices.empty(), "a micro-batch without slices: give one without rows");
  memory->slices.resize(slices.size());
  std::vector<const Routing*> routings;  // [slices x MoE layers]
  int64_t tokens = 0;
  for (size_t s = 0; s < slices.size(); ++s) {
    Activations* a = &memory->slices[s];
    forward(model, rope, slices[s], options, a, &memory->buffers);
    for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
      if (!model.config.is_dense(layer)) routings.push_back(&a->blocks[layer].moe.routing);
    }
    tokens += model.contract.losses_over == LossTokens::kAll ? slices[s].num_tokens()
                                                             : slices[s].num_labels();
  }
  // Counts travel behind the head and the cross-entropy; the backward pass is the first to need
  // them.
  counts->start(world, routings, tokens);
  for (size_t s = 0; s < slices.size(); ++s) {
    backward(model, rope, slices[s], options, loss, counts, gradients, sums, &memory->slices[s],
             &memory->buffers);
  }
}

}  // namespace emo
