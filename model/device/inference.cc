#include "model/device/inference.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "model/device/kernels/cross_entropy.h"
#include "model/device/kernels/embedding.h"
#include "model/device/kernels/rms_norm.h"
#include "model/device/matrix.h"

namespace emo::device {
namespace {

at::Tensor to_host(const at::Tensor& tensor) { return tensor.to(at::kFloat).cpu(); }

template <typename Number>
at::Tensor tensor_of(const std::vector<Number>& numbers, at::ScalarType type, at::Device device) {
  const at::Tensor tensor =
      at::empty({static_cast<int64_t>(numbers.size())}, at::TensorOptions().dtype(type));
  std::copy(numbers.begin(), numbers.end(), tensor.mutable_data_ptr<Number>());
  return to_device(tensor, device);
}

class DeviceInference : public Inference {
 public:
  DeviceInference(DeviceModel* model, const Mesh& mesh) : model_(*model), mesh_(mesh) {}

  const ModelConfig& config() const override { return model_.config; }
  const RoutingContract& contract() const override { return model_.contract; }
  const Mesh& mesh() const override { return mesh_; }
  KeyValueCache make_cache(int64_t sequences, int64_t tokens) const override {
    return {model_.config, sequences, tokens, model_.parameters.dense.options()};
  }

  void run(const Slice& slice, const InferenceOptions& options) override {
    last_ = run_blocks(slice, options);
  }
  const std::vector<float>& token_losses(const Slice& slice,
                                         const InferenceOptions& options) override;
  at::Tensor logits(const Slice& slice, const InferenceOptions& options,
                    const std::vector<int64_t>& rows) override;
  at::Tensor embed(const Slice& slice) override {
    return embed_on_device(on_device(slice, {}, nullptr));
  }
  at::Tensor run_block(const Slice& slice, const InferenceOptions& options, int64_t layer,
                       const at::Tensor& x) override {
    return run_layer(on_device(slice, options.settings, options.cache), options,
                     pass_of(options, model_.config, mesh_), layer, x);
  }

 private:
  DeviceSlice on_device(const Slice& slice, const PassSettings& settings,
                        const KeyValueCache* cache);
  at::Tensor embed_on_device(const DeviceSlice& slice) const;
  at::Tensor run_layer(const DeviceSlice& slice, const InferenceOptions& options,
                       const PassOptions& pass, int64_t layer, const at::Tensor& x);
  at::Tensor run_blocks(const Slice& slice, const InferenceOptions& options);
  void show(const InferenceOptions& options, int64_t layer, const BlockKept& kept,
            const at::Tensor& y);
  // Of the last block's output: these rows as the head sees them, S [rows, D].
  at::Tensor head_input(const std::vector<int64_t>& rows) const;

  DeviceModel& model_;
  const Mesh& mesh_;
  at::Tensor last_;             // S [T, D]
  std::vector<uint8_t> pools_;  // of the block that is shown
  std::vector<float> loss_;     // [T]
};

DeviceSlice DeviceInference::on_device(const Slice& slice, const PassSettings& settings,
                                       const KeyValueCache* cache) {
  const auto* position = slice.positions.const_data_ptr<int32_t>();
  const int64_t T = slice.num_tokens();
  if (T > 0) model_.reserve_positions(*std::max_element(position, position + T) + 1);
  DeviceSlice there = make_device_slice(slice, model_.config, model_.contract, settings,
                                        model_.positions(), model_.device);
  if (cache != nullptr) there.cached = cached_tokens(slice, *cache, model_.device);
  return there;
}

at::Tensor DeviceInference::embed_on_device(const DeviceSlice& slice) const {
  at::Tensor x = at::empty({slice.T, model_.config.d_model}, model_.parameters.dense.options());
  device::embed(slice.tokens, model_.weights.embedding, x);
  return x;
}

at::Tensor DeviceInference::run_layer(const DeviceSlice& slice, const InferenceOptions& options,
                                      const PassOptions& pass, int64_t layer, const at::Tensor& x) {
  const BlockContext context{model_.config, model_.contract, model_.rope, model_.placements, pass};
  BlockKept kept;
  kept.x = x;
  at::Tensor y = block_forward(context, model_.weights.layers[layer], slice, layer, &kept);
  if (options.after_block) show(options, layer, kept, y);
  return y;
}

void DeviceInference::show(const InferenceOptions& options, int64_t layer, const BlockKept& kept,
                           const at::Tensor& y) {
  BlockView view;
  view.layer = layer;
  if (!model_.config.is_dense(layer)) {
    view.router_logits = kept.moe.router_input.logits.cpu();
    view.experts = kept.moe.routing.experts.cpu();
    view.weights = kept.moe.routing.weights.cpu();
    const at::Tensor pools = kept.moe.routing.pools.cpu();
    const auto* in = pools.const_data_ptr<uint8_t>();
    pools_.assign(in, in + pools.numel());
    view.pools = &pools_;
  }
  if (options.want_states) {
    if (kept.moe.contributions.defined()) view.contributions = kept.moe.contributions.cpu();
    view.h = to_host(kept.h);
    view.feed_forward_input = to_host(kept.feed_forward_input);
    view.y = to_host(y);
  }
  options.after_block(view);
}

at::Tensor DeviceInference::run_blocks(const Slice& slice, const InferenceOptions& options) {
  const DeviceSlice there = on_device(slice, options.settings, options.cache);
  const PassOptions pass = pass_of(options, model_.config, mesh_);
  at::Tensor x = embed_on_device(there);
  for (int64_t layer = 0; layer < model_.config.n_layers; ++layer) {
    x = run_layer(there, options, pass, layer, x);
  }
  if (options.cache != nullptr) {
    advance(options.cache, slice.attention_ends.const_data_ptr<int32_t>());
  }
  return x;
}

at::Tensor DeviceInference::head_input(const std::vector<int64_t>& rows) const {
  const at::Tensor x = last_.index_select(0, tensor_of(rows, at::kLong, model_.device));
  at::Tensor normalised = at::empty(x.sizes(), x.options());
  rms_norm(x, model_.weights.final_norm, static_cast<float>(model_.config.norm_epsilon), normalised,
           at::empty({x.size(0)}, x.options().dtype(at::kFloat)));
  return normalised;
}

const std::vector<float>& DeviceInference::token_losses(const Slice& slice,
                                                        const InferenceOptions& options) {
  run(slice, options);
  const LabelledTokens tokens = labelled_tokens(slice);
  const at::Tensor x = head_input(tokens.rows);
  const at::Tensor labels = tensor_of(tokens.labels, at::kInt, model_.device);
  const auto count = static_cast<int64_t>(tokens.rows.size());
  const at::Tensor losses = at::empty({count}, x.options().dtype(at::kFloat));
  const at::Tensor z_squares = at::empty_like(losses);
  for (int64_t begin = 0; begin < count; begin += model_.head_rows) {
    const int64_t end = std::min(count, begin + model_.head_rows);
    cross_entropy_and_gradient(linear(x.slice(0, begin, end), model_.weights.head),
                               labels.slice(0, begin, end), /*scale=*/1, /*z_weight=*/0,
                               losses.slice(0, begin, end), z_squares.slice(0, begin, end));
  }
  const at::Tensor host = losses.cpu();
  loss_.assign(slice.num_tokens(), 0);
  for (int64_t i = 0; i < count; ++i) loss_[tokens.rows[i]] = host.const_data_ptr<float>()[i];
  return loss_;
}

at::Tensor DeviceInference::logits(const Slice& slice, const InferenceOptions& options,
                                   const std::vector<int64_t>& rows) {
  run(slice, options);
  return to_host(linear(head_input(rows), model_.weights.head));
}

}  // namespace

std::unique_ptr<Inference> make_inference(DeviceModel* model, const Mesh& mesh) {
  return std::make_unique<DeviceInference>(model, mesh);
}

}  // namespace emo::device
