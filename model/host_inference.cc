#include <algorithm>
#include <cstring>
#include <utility>

#include "model/host/linear.h"
#include "model/host/lm_head.h"
#include "model/host/rms_norm.h"
#include "model/inference.h"
#include "parallel/buffers.h"

namespace emo {
namespace {

class HostInference : public Inference {
 public:
  HostInference(Model* model, const Mesh& mesh, PassBuffers* shared)
      : model_(*model), mesh_(mesh), buffers_(shared != nullptr ? *shared : own_) {}

  const ModelConfig& config() const override { return model_.config; }
  const RoutingContract& contract() const override { return model_.contract; }
  const Mesh& mesh() const override { return mesh_; }
  KeyValueCache make_cache(int64_t sequences, int64_t tokens) const override {
    return {model_.config, sequences, tokens};
  }

  void run(const Slice& slice, const InferenceOptions& options) override;
  const std::vector<float>& token_losses(const Slice& slice,
                                         const InferenceOptions& options) override;
  at::Tensor logits(const Slice& slice, const InferenceOptions& options,
                    const std::vector<int64_t>& rows) override;
  at::Tensor embed(const Slice& slice) override {
    at::Tensor x;
    embed_into(slice, &x);
    return x;
  }
  at::Tensor run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                       const at::Tensor& x) override {
    at::Tensor y;
    run_block_into(slice, options, pass_of(options, model_.config, mesh_), layer, x, &y);
    return y;
  }

 private:
  void embed_into(const Slice& slice, at::Tensor* x);
  void run_block_into(const Slice& slice, const InferenceOptions& options, const PassOptions& pass,
                      int64_t layer, const at::Tensor& x, at::Tensor* y);
  // Of the last block's output x_: these rows as the head sees them, [rows, D].
  const at::Tensor& head_input(const std::vector<int64_t>& rows);

  Model& model_;
  const Mesh& mesh_;
  PassBuffers own_;
  PassBuffers& buffers_;
  at::Tensor x_, y_;         // [T, D] input and output of a block, in turn
  at::Tensor rows_;          // [rows, D] of the last output, those that the head is wanted for
  at::Tensor normalised_;    // the same, as the head sees them
  at::Tensor reciprocal_;    // [rows] of the final norm
  std::vector<float> loss_;  // [T]
};

void HostInference::embed_into(const Slice& slice, at::Tensor* x) {
  const auto* position = slice.positions.const_data_ptr<int32_t>();
  const int64_t T = slice.num_tokens();
  if (T > 0) model_.reserve_positions(*std::max_element(position, position + T) + 1);
  shape_buffer(x, {T, model_.config.d_model});
  forward_embedding(model_, slice, x);
}

void HostInference::run_block_into(const Slice& slice, const InferenceOptions& options,
                                   const PassOptions& pass, int64_t layer, const at::Tensor& x,
                                   at::Tensor* y) {
  shape_buffer(y, x.sizes());
  BlockActivations& block = buffers_.recomputed;
  forward_block(model_, slice, pass, layer, x, &block, &buffers_, y);
  if (!options.after_block) return;
  BlockView view;
  view.layer = layer;
  if (!model_.config.is_dense(layer)) {
    view.router_logits = block.moe.logits;
    view.experts = block.moe.routing.experts;
    view.weights = block.moe.routing.weights;
    view.pools = &block.moe.routing.pools;
    if (options.want_states) view.contributions = block.moe.contributions;
  }
  if (options.want_states) {
    view.h = block.h;
    view.feed_forward_input = block.feed_forward_input;
    view.y = *y;
  }
  options.after_block(view);
}

void HostInference::run(const Slice& slice, const InferenceOptions& options) {
  const PassOptions pass = pass_of(options, model_.config, mesh_);
  embed_into(slice, &x_);
  for (int64_t layer = 0; layer < model_.config.n_layers; ++layer) {
    run_block_into(slice, options, pass, layer, x_, &y_);
    std::swap(x_, y_);
  }
  if (options.cache != nullptr) {
    advance(options.cache, slice.attention_ends.const_data_ptr<int32_t>());
  }
}

const at::Tensor& HostInference::head_input(const std::vector<int64_t>& rows) {
  const int64_t D = model_.config.d_model;
  const auto count = static_cast<int64_t>(rows.size());
  shape_buffer(&rows_, {count, D});
  auto* to = rows_.mutable_data_ptr<float>();
  for (const int64_t row : rows) {
    std::memcpy(to, x_.const_data_ptr<float>() + row * D, D * sizeof(float));
    to += D;
  }
  shape_buffer(&normalised_, {count, D});
  shape_buffer(&reciprocal_, {count});
  rms_norm(count, D, rows_.const_data_ptr<float>(), model_.weights.final_norm,
           static_cast<float>(model_.config.norm_epsilon), normalised_.mutable_data_ptr<float>(),
           reciprocal_.mutable_data_ptr<float>());
  return normalised_;
}

const std::vector<float>& HostInference::token_losses(const Slice& slice,
                                                      const InferenceOptions& options) {
  run(slice, options);
  const LabelledTokens tokens = labelled_tokens(slice);
  const at::Tensor& x = head_input(tokens.rows);
  std::vector<float> loss(tokens.rows.size());
  lm_loss(model_.weights.head, x.size(0), x.const_data_ptr<float>(), tokens.labels.data(), nullptr,
          loss.data(), &buffers_.block.feed_forward.scratch);
  loss_.assign(slice.num_tokens(), 0);
  for (size_t i = 0; i < loss.size(); ++i) loss_[tokens.rows[i]] = loss[i];
  return loss_;
}

at::Tensor HostInference::logits(const Slice& slice, const InferenceOptions& options,
                                 const std::vector<int64_t>& rows) {
  run(slice, options);
  const int64_t D = model_.config.d_model;
  const int64_t V = model_.config.vocab_size;
  const at::Tensor& x = head_input(rows);
  at::Tensor logits;
  shape_buffer(&logits, {x.size(0), V});
  linear(x.size(0), V, D, {x.const_data_ptr<float>(), D}, {model_.weights.head.w, D}, 0,
         {logits.mutable_data_ptr<float>(), V});
  return logits;
}

}  // namespace

std::unique_ptr<Inference> make_inference(Model* model, const Mesh& mesh, PassBuffers* shared) {
  return std::make_unique<HostInference>(model, mesh, shared);
}

}  // namespace emo
