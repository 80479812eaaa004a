#include "model/inference.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "model/host/linear.h"
#include "model/host/lm_head.h"
#include "model/host/rms_norm.h"
#include "parallel/buffers.h"

namespace emo {

Inference::Inference(Model* model, const Mesh& mesh, PassBuffers* shared)
    : model_(model), mesh_(mesh), buffers_(shared != nullptr ? shared : &own_) {}

PassOptions Inference::pass_of(const InferenceOptions& options) const {
  PassOptions pass;
  pass.ep = mesh_.ep.get();
  pass.settings = options.settings;
  pass.settings.recompute = Recompute::kNone;
  pass.settings.precision = Precision::kFp32;
  pass.want_contributions = options.want_contributions;
  pass.cache = options.cache;
  return pass;
}

void Inference::embed_into(const Slice& slice, at::Tensor* x) {
  const auto* position = slice.positions.const_data_ptr<int32_t>();
  const int64_t T = slice.num_tokens();
  if (T > 0) model_->reserve_positions(*std::max_element(position, position + T) + 1);
  shape_buffer(x, {T, model_->config.d_model});
  forward_embedding(*model_, slice, x);
}

at::Tensor Inference::embed(const Slice& slice) {
  at::Tensor x;
  embed_into(slice, &x);
  return x;
}

void Inference::run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                          const at::Tensor& x, at::Tensor* y) {
  shape_buffer(y, x.sizes());
  BlockActivations* block = &buffers_->recomputed;
  forward_block(*model_, slice, pass_of(options), layer, x, block, buffers_, y);
  if (!options.after_block) return;
  options.after_block({layer, block->h, block->feed_forward_input, *y,
                       model_->config.is_dense(layer) ? nullptr : &block->moe});
}

void Inference::run(const Slice& slice, const InferenceOptions& options) {
  const ModelConfig& config = model_->config;
  const auto subsets = static_cast<int64_t>(options.settings.subsets.size());
  TORCH_CHECK(subsets == 0 || subsets == config.n_layers, subsets, " expert subsets for ",
              config.n_layers, " layers");
  embed_into(slice, &x_);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    run_block(slice, options, layer, x_, &y_);
    std::swap(x_, y_);
  }
  if (options.cache != nullptr) {
    advance(options.cache, slice.attention_ends.const_data_ptr<int32_t>());
  }
}

const at::Tensor& Inference::final_norm(const at::Tensor& x) {
  const int64_t T = x.size(0);
  shape_buffer(&normalised_, x.sizes());
  shape_buffer(&reciprocal_, {T});
  rms_norm(T, x.size(1), x.const_data_ptr<float>(), model_->weights.final_norm,
           static_cast<float>(model_->config.norm_epsilon), normalised_.mutable_data_ptr<float>(),
           reciprocal_.mutable_data_ptr<float>());
  return normalised_;
}

const at::Tensor& Inference::last_of(const std::vector<int64_t>& rows) {
  const int64_t D = model_->config.d_model;
  shape_buffer(&rows_, {static_cast<int64_t>(rows.size()), D});
  auto* to = rows_.mutable_data_ptr<float>();
  for (const int64_t row : rows) {
    std::memcpy(to, x_.const_data_ptr<float>() + row * D, D * sizeof(float));
    to += D;
  }
  return rows_;
}

const std::vector<float>& Inference::token_losses(const Slice& slice,
                                                  const InferenceOptions& options) {
  run(slice, options);
  std::vector<int64_t> rows;
  std::vector<int32_t> labels;
  const auto* label = slice.labels.const_data_ptr<int32_t>();
  for (int64_t t = 0; t < slice.num_tokens(); ++t) {
    if (label[t] < 0) continue;
    rows.push_back(t);
    labels.push_back(label[t]);
  }
  const at::Tensor& x = final_norm(last_of(rows));
  std::vector<float> loss(rows.size());
  lm_loss(model_->weights.head, x.size(0), x.const_data_ptr<float>(), labels.data(), nullptr,
          loss.data(), &buffers_->block.feed_forward.scratch);
  loss_.assign(slice.num_tokens(), 0);
  for (size_t i = 0; i < rows.size(); ++i) loss_[rows[i]] = loss[i];
  return loss_;
}

at::Tensor Inference::logits(const Slice& slice, const InferenceOptions& options,
                             const std::vector<int64_t>& rows) {
  run(slice, options);
  const int64_t D = model_->config.d_model;
  const int64_t V = model_->config.vocab_size;
  const at::Tensor& x = final_norm(last_of(rows));
  at::Tensor logits;
  shape_buffer(&logits, {x.size(0), V});
  linear(x.size(0), V, D, {x.const_data_ptr<float>(), D}, {model_->weights.head.w, D}, 0,
         {logits.mutable_data_ptr<float>(), V});
  return logits;
}

}  // namespace emo
