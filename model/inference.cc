#include "model/inference.h"

#include <algorithm>
#include <utility>

namespace emo {
namespace {

// What a pass is told.
PassOptions pass_of(const InferenceOptions& options, const Mesh& mesh) {
  PassOptions pass;
  pass.ep = mesh.ep.get();
  pass.settings = options.settings;
  pass.settings.recompute = Recompute::kNone;
  pass.settings.precision = Precision::kFp32;
  pass.want_contributions = options.want_states;
  pass.cache = options.cache;
  return pass;
}

// The tokens of a slice that have a label, ascending, and those labels: the head is computed for
// them alone.
struct LabelledTokens {
  std::vector<int64_t> rows;
  std::vector<int32_t> labels;
};
LabelledTokens labelled_tokens(const Slice& slice) {
  LabelledTokens found;
  const auto* label = slice.labels.const_data_ptr<int32_t>();
  for (int64_t t = 0; t < slice.num_tokens(); ++t) {
    if (label[t] < 0) continue;
    found.rows.push_back(t);
    found.labels.push_back(label[t]);
  }
  return found;
}

// The same tensor where it is there already.
at::Tensor to_host(const at::Tensor& tensor) {
  return tensor.is_floating_point() ? tensor.to(at::kCPU, at::kFloat) : tensor.cpu();
}

}  // namespace

Inference::Inference(Model* model, const Mesh& mesh, PassBuffers* shared)
    : model_(*model), mesh_(mesh), buffers_(shared != nullptr ? *shared : own_) {}

at::Tensor Inference::selection_bias(int64_t layer) const {
  const at::Tensor& bias = model_.weights.layers[layer].selection_bias;
  return bias.defined() ? to_host(bias) : bias;
}

KeyValueCache Inference::make_cache(int64_t sequences, int64_t tokens) const {
  return {model_.config, sequences, tokens, model_.backend->parameters()};
}

PlacedSlice Inference::place(const Slice& slice, const InferenceOptions& options) {
  const auto* position = slice.positions.const_data_ptr<int32_t>();
  const int64_t T = slice.num_tokens();
  if (T > 0) model_.reserve_positions(*std::max_element(position, position + T) + 1);
  PlacedSlice placed = place_slice(model_, slice, options.settings);
  if (options.cache != nullptr) {
    placed.cached = model_.backend->cached_tokens(slice, *options.cache);
  }
  return placed;
}

void Inference::run_layer(const PlacedSlice& slice, const InferenceOptions& options,
                          const PassOptions& pass, int64_t layer, const at::Tensor& x,
                          at::Tensor* y) {
  forward_block(model_, slice, pass, layer, x, &buffers_.recomputed, &buffers_, y);
  if (options.after_block) show(options, layer, *y);
  give_back(*model_.backend, &buffers_.recomputed);
}

void Inference::show(const InferenceOptions& options, int64_t layer, const at::Tensor& y) const {
  const BlockActivations& block = buffers_.recomputed;
  const bool moe = !model_.config.is_dense(layer);
  BlockView view;
  view.layer = layer;
  if (moe) {
    view.router_logits = to_host(block.moe.router_input.logits);
    view.experts = to_host(block.moe.routing.experts);
    view.weights = to_host(block.moe.routing.weights);
    view.pools = to_host(block.moe.routing.pools);
    if (options.want_states) view.contributions = to_host(block.moe.contributions);
  }
  if (options.want_states) {
    view.h = to_host(block.h);
    view.feed_forward_input = to_host(block.feed_forward_input.y);
    view.y = to_host(y);
  }
  options.after_block(view);
}

void Inference::run(const Slice& slice, const InferenceOptions& options) {
  const PassOptions pass = pass_of(options, mesh_);
  const PlacedSlice placed = place(slice, options);
  forward_embedding(model_, placed, &x_);
  for (int64_t layer = 0; layer < model_.config.n_layers; ++layer) {
    run_layer(placed, options, pass, layer, x_, &y_);
    std::swap(x_, y_);
    give_back(*model_.backend, &y_);
  }
  if (options.cache != nullptr) {
    advance(options.cache, slice.attention_ends.const_data_ptr<int32_t>());
  }
}

at::Tensor Inference::embed(const Slice& slice) {
  at::Tensor x;
  forward_embedding(model_, place(slice, {}), &x);
  return x;
}

at::Tensor Inference::run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                                const at::Tensor& x) {
  at::Tensor y;
  run_layer(place(slice, options), options, pass_of(options, mesh_), layer, x, &y);
  return y;
}

const at::Tensor& Inference::head_input(const std::vector<int64_t>& rows) {
  Backend& backend = *model_.backend;
  backend.gather_rows(x_, rows, &rows_);
  backend.rms_norm(rows_, model_.weights.final_norm, model_.config.norm_epsilon,
                   backend.stored(Precision::kFp32), &normalised_);
  return normalised_.y;
}

const std::vector<float>& Inference::token_losses(const Slice& slice,
                                                  const InferenceOptions& options) {
  run(slice, options);
  const LabelledTokens tokens = labelled_tokens(slice);
  const auto count = static_cast<int64_t>(tokens.rows.size());
  const at::Tensor losses = model_.backend->head_losses(
      head_input(tokens.rows), tensor_of(tokens.labels), model_.weights.head);
  const auto* loss = losses.const_data_ptr<float>();
  loss_.assign(slice.num_tokens(), 0);
  for (int64_t i = 0; i < count; ++i) loss_[tokens.rows[i]] = loss[i];
  return loss_;
}

at::Tensor Inference::logits(const Slice& slice, const InferenceOptions& options,
                             const std::vector<int64_t>& rows) {
  run(slice, options);
  const at::Tensor& x = head_input(rows);
  at::Tensor logits;  // as head_losses() has them
  model_.backend->linear(x, model_.weights.head, x.scalar_type(), &logits);
  return to_host(logits);
}

}  // namespace emo
