#include "model/weights.h"

#include <c10/util/Exception.h>

#include <string>
#include <unordered_map>

namespace emo {
namespace {

// Finds parameters by name and cuts views out of the buffers.
class Binder {
 public:
  Binder(const ParameterLayout& layout, const FlatBuffers& buffers) : buffers_(buffers) {
    for (const ParameterInfo& parameter : layout.parameters) by_name_[parameter.name] = &parameter;
  }

  // A view that starts at the parameter, contiguous.
  at::Tensor view(const std::string& name, at::IntArrayRef shape) const {
    int64_t stride = 1;
    std::vector<int64_t> strides(shape.size());
    for (size_t i = shape.size(); i-- > 0; stride *= shape[i]) strides[i] = stride;
    return strided(name, shape, strides);
  }
  at::Tensor strided(const std::string& name, at::IntArrayRef shape,
                     at::IntArrayRef strides) const {
    const ParameterInfo& parameter = find(name);
    const at::Tensor& buffer =
        parameter.buffer == ParameterBuffer::kDense ? buffers_.dense : buffers_.experts;
    return buffer.as_strided(shape, strides, parameter.offset);
  }
  int64_t offset(const std::string& name) const { return find(name).offset; }
  at::Tensor no_experts(at::IntArrayRef shape) const { return buffers_.experts.new_empty(shape); }

 private:
  const ParameterInfo& find(const std::string& name) const {
    const auto found = by_name_.find(name);
    TORCH_CHECK(found != by_name_.end(), "no parameter ", name);
    return *found->second;
  }
  const FlatBuffers& buffers_;
  std::unordered_map<std::string, const ParameterInfo*> by_name_;
};

FeedForwardWeights feed_forward(const Binder& binder, const std::string& prefix, int64_t D,
                                int64_t F) {
  return {binder.view(prefix + "gate_proj.weight", {2 * F, D}),
          binder.view(prefix + "down_proj.weight", {D, F})};
}

// This rank's experts of a layer: they lie one after another at equal distances.
FeedForwardWeights routed_experts(const ModelConfig& config, const ParameterLayout& layout,
                                  const Binder& binder, int64_t layer, const std::string& prefix) {
  const int64_t D = config.d_model;
  const int64_t F = config.d_expert;
  const ExpertPlacement& placement = layout.placements[layer];
  const int64_t begin = placement.first(layout.ep_rank);
  const int64_t count = placement.count(layout.ep_rank);
  const auto name = [&](int64_t i) {
    return prefix + "experts." + std::to_string(placement.expert_at(begin + i)) + ".";
  };
  if (count == 0) return {binder.no_experts({0, 2 * F, D}), binder.no_experts({0, D, F})};
  const int64_t first = binder.offset(name(0) + "gate_proj.weight");
  // Of one there is no next: any distance will do.
  const int64_t distance =
      count > 1 ? binder.offset(name(1) + "gate_proj.weight") - first : 3 * F * D;
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK(binder.offset(name(i) + "gate_proj.weight") == first + i * distance, "experts of ",
                prefix, " do not lie at equal distances");
  }
  return {binder.strided(name(0) + "gate_proj.weight", {count, 2 * F, D}, {distance, D, 1}),
          binder.strided(name(0) + "down_proj.weight", {count, D, F}, {distance, F, 1})};
}

LayerWeights bind_layer(const ModelConfig& config, const ParameterLayout& layout,
                        const Binder& binder, int64_t layer) {
  const int64_t D = config.d_model;
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  LayerWeights w;
  w.attention_norm = binder.view(prefix + "pre_attention_layernorm.weight", {D});
  w.qkv = binder.view(prefix + "self_attn.q_proj.weight", {3 * D, D});
  if (config.qk_norm) {
    w.q_norm = binder.view(prefix + "self_attn.q_norm.weight", {D});
    w.k_norm = binder.view(prefix + "self_attn.k_norm.weight", {D});
  }
  w.attention_out = binder.view(prefix + "self_attn.o_proj.weight", {D, D});
  w.feed_forward_norm = binder.view(prefix + "pre_feedforward_layernorm.weight", {D});
  if (config.is_dense(layer)) {
    w.always.push_back(feed_forward(binder, prefix + "mlp.", D, config.d_ffn));
    return w;
  }
  w.router = binder.view(prefix + "mlp.gate.weight", {config.routed_experts(layer), D});
  if (config.selection_bias) {
    w.selection_bias = binder.view(selection_bias_name(layer), {config.routed_experts(layer)});
  }
  for (int64_t e = config.routed_experts(layer); e < config.experts(layer); ++e) {
    w.always.push_back(feed_forward(binder, prefix + "mlp.experts." + std::to_string(e) + ".", D,
                                    config.d_expert));
  }
  w.routed = routed_experts(config, layout, binder, layer, prefix + "mlp.");
  return w;
}

}  // namespace

ModelWeights bind_weights(const ModelConfig& config, const ParameterLayout& layout,
                          const FlatBuffers& buffers) {
  const Binder binder(layout, buffers);
  ModelWeights w;
  w.embedding = binder.view("model.embed_tokens.weight", {config.vocab_size, config.d_model});
  w.final_norm = binder.view("model.norm.weight", {config.d_model});
  w.head = binder.view("lm_head.weight", {config.vocab_size, config.d_model});
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    w.layers.push_back(bind_layer(config, layout, binder, layer));
  }
  return w;
}

}  // namespace emo
