#include "model/parameters.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/philox.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

constexpr char kSelectionBias[] = "mlp.gate.e_score_correction_bias";
constexpr int64_t kAlignment = 16;  // floats: a cache line; of parameters and of ranks' parts

class LayoutBuilder {
 public:
  explicit LayoutBuilder(ParameterLayout* layout) : layout_(layout) {}

  // `joined`: lies directly behind the one before, so that both are one matrix.
  void add(ParameterBuffer buffer, std::string name, std::vector<int64_t> shape,
           bool joined = false) {
    int64_t& end = end_[static_cast<size_t>(buffer)];
    if (!joined) end = round_up(end, kAlignment);
    layout_->parameters.push_back({std::move(name), std::move(shape), buffer, end});
    end += layout_->parameters.back().numel();
  }

  // Ends the bucket of both buffers; what follows is in the next one.
  void end_bucket() {
    end_bucket(&layout_->dense, &end_[static_cast<size_t>(ParameterBuffer::kDense)]);
    end_bucket(&layout_->experts, &end_[static_cast<size_t>(ParameterBuffer::kExperts)]);
  }

  void add_feed_forward(ParameterBuffer buffer, const std::string& prefix, int64_t D, int64_t F) {
    add(buffer, prefix + "gate_proj.weight", {F, D});
    add(buffer, prefix + "up_proj.weight", {F, D}, /*joined=*/true);
    add(buffer, prefix + "down_proj.weight", {D, F});
  }

 private:
  static int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
  }
  static void end_bucket(Sharding* sharding, int64_t* end) {
    const int64_t begin = sharding->size();
    *end = round_up(*end, kAlignment * sharding->ranks);
    sharding->buckets.push_back({begin, *end - begin});
  }

  ParameterLayout* layout_;
  std::array<int64_t, 2> end_ = {};  // of each ParameterBuffer
};

std::string layer_prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }
std::string expert_prefix(int64_t layer, int64_t expert) {
  return layer_prefix(layer) + "mlp.experts." + std::to_string(expert) + ".";
}

void add_dense_layer_part(const ModelConfig& config, int64_t layer, LayoutBuilder* builder) {
  const int64_t D = config.d_model;
  const std::string prefix = layer_prefix(layer);
  const auto dense = ParameterBuffer::kDense;
  builder->add(dense, prefix + "pre_attention_layernorm.weight", {D});
  builder->add(dense, prefix + "self_attn.q_proj.weight", {D, D});
  builder->add(dense, prefix + "self_attn.k_proj.weight", {D, D}, /*joined=*/true);
  builder->add(dense, prefix + "self_attn.v_proj.weight", {D, D}, /*joined=*/true);
  if (config.qk_norm) {
    builder->add(dense, prefix + "self_attn.q_norm.weight", {D});
    builder->add(dense, prefix + "self_attn.k_norm.weight", {D});
  }
  builder->add(dense, prefix + "self_attn.o_proj.weight", {D, D});
  builder->add(dense, prefix + "pre_feedforward_layernorm.weight", {D});
  if (config.is_dense(layer)) {
    builder->add_feed_forward(dense, prefix + "mlp.", D, config.d_ffn);
    return;
  }
  builder->add(dense, prefix + "mlp.gate.weight", {config.experts(layer), D});
  if (config.selection_bias) {
    builder->add(dense, selection_bias_name(layer), {config.experts(layer)});
  }
  for (int64_t e = config.routed_experts(layer); e < config.experts(layer); ++e) {
    builder->add_feed_forward(dense, expert_prefix(layer, e), D, config.d_expert);
  }
}

// This rank's experts, in order of positions.
std::vector<int64_t> experts_here(const ParameterLayout& layout, int64_t layer) {
  const ExpertPlacement& placement = layout.placements[layer];
  std::vector<int64_t> experts;
  for (int64_t p = placement.first(layout.ep_rank); p < placement.first(layout.ep_rank + 1); ++p) {
    experts.push_back(placement.expert_at(p));
  }
  return experts;
}

void add_routed_experts(const ModelConfig& config, const ParameterLayout& layout, int64_t layer,
                        LayoutBuilder* builder) {
  if (config.is_dense(layer)) return;
  for (const int64_t e : experts_here(layout, layer)) {
    builder->add_feed_forward(ParameterBuffer::kExperts, expert_prefix(layer, e), config.d_model,
                              config.d_expert);
  }
}

// FNV-1a: a parameter's name as a number.
uint64_t name_hash(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// The inverse error function by M. Giles ("Approximating the erfinv function", 2010), |x| < 1.
double erf_inverse(double x) {
  double w = -std::log((1.0 - x) * (1.0 + x));
  double p = 0;
  if (w < 5.0) {
    w -= 2.5;
    for (const double c :
         {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
          -0.00125372503, -0.00417768164, 0.246640727, 1.50140941}) {
      p = p * w + c;
    }
  } else {
    w = std::sqrt(w) - 3.0;
    for (const double c : {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844,
                           0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682}) {
      p = p * w + c;
    }
  }
  return p * x;
}

void fill_truncated_normal(double deviation, uint64_t seed, uint64_t stream, int64_t count,
                           float* data) {
  const double edge = std::erf(3.0 / std::sqrt(2.0));
  parallel_for((count + 3) / 4, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const PhiloxCounter bits = philox(
          philox_key(seed), {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                             static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)});
      for (int64_t i = 4 * block; i < std::min(count, 4 * block + 4); ++i) {
        const double uniform = (bits[static_cast<size_t>(i % 4)] + 0.5) / 4294967296.0;  // (0, 1)
        data[i] = static_cast<float>(deviation * std::sqrt(2.0) *
                                     erf_inverse(edge * (2.0 * uniform - 1.0)));
      }
    }
  });
}

}  // namespace

std::string selection_bias_name(int64_t layer) { return layer_prefix(layer) + kSelectionBias; }

bool is_selection_bias(const std::string& name) { return name.ends_with(kSelectionBias); }

int64_t ParameterInfo::numel() const {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

ParameterLayout make_layout(const ModelConfig& config, const GridPosition& position,
                            const ExpertOrder& order) {
  ParameterLayout layout;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    ExpertPlacement placement{config.routed_experts(layer), position.ep, {}};
    if (layer < static_cast<int64_t>(order.size())) placement.order = order[layer];
    TORCH_CHECK(placement.order.empty() || is_permutation(placement.order, placement.experts),
                "layer ", layer, ": the order of its experts is no permutation of ",
                placement.experts);
    layout.placements.push_back(std::move(placement));
  }
  layout.ep_rank = position.ep_rank;
  layout.dense.ranks = position.ranks();
  layout.dense.rank = position.rank();
  layout.experts.ranks = position.dp;
  layout.experts.rank = position.dp_rank;
  LayoutBuilder builder(&layout);
  const auto dense = ParameterBuffer::kDense;
  builder.add(dense, "model.embed_tokens.weight", {config.vocab_size, config.d_model});
  builder.end_bucket();
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    add_dense_layer_part(config, layer, &builder);
    add_routed_experts(config, layout, layer, &builder);
    builder.end_bucket();
  }
  builder.add(dense, "model.norm.weight", {config.d_model});
  builder.add(dense, "lm_head.weight", {config.vocab_size, config.d_model});
  builder.end_bucket();
  std::stable_sort(
      layout.parameters.begin(), layout.parameters.end(),
      [](const ParameterInfo& a, const ParameterInfo& b) { return a.buffer < b.buffer; });
  return layout;
}

ParameterLayout fold_buckets(const ParameterLayout& layout) {
  ParameterLayout folded = layout;
  const auto fold_buffer = [&](ParameterBuffer buffer, const Sharding& whole, Sharding* sharding) {
    if (whole.ranks == 1) return;
    *sharding = fold(whole);
    for (ParameterInfo& parameter : folded.parameters) {
      if (parameter.buffer != buffer) continue;
      size_t bucket = 0;
      while (parameter.offset >= whole.buckets[bucket].begin + whole.buckets[bucket].size) ++bucket;
      parameter.offset += sharding->buckets[bucket].begin - whole.buckets[bucket].begin;
    }
  };
  fold_buffer(ParameterBuffer::kDense, layout.dense, &folded.dense);
  fold_buffer(ParameterBuffer::kExperts, layout.experts, &folded.experts);
  return folded;
}

FlatBuffers make_buffers(const ParameterLayout& layout, const at::TensorOptions& options) {
  return {at::zeros({layout.dense.size()}, options), at::zeros({layout.experts.size()}, options)};
}

float* parameter_data(const ParameterInfo& parameter, const FlatBuffers& buffers) {
  const at::Tensor& buffer =
      parameter.buffer == ParameterBuffer::kDense ? buffers.dense : buffers.experts;
  return buffer.mutable_data_ptr<float>() + parameter.offset;
}

void initialise(const ModelConfig& config, const ParameterLayout& layout, FlatBuffers* parameters) {
  for (const ParameterInfo& parameter : layout.parameters) {
    float* data = parameter_data(parameter, *parameters);
    if (is_selection_bias(parameter.name)) {
      std::fill_n(data, parameter.numel(), 0.0f);
    } else if (parameter.shape.size() == 1) {
      std::fill_n(data, parameter.numel(), 1.0f);
    } else {
      fill_truncated_normal(config.init_std, config.init_seed, name_hash(parameter.name),
                            parameter.numel(), data);
    }
  }
}

ParameterCounts count_parameters(const ModelConfig& config) {
  ParameterCounts counts;
  for (const ParameterInfo& parameter : make_layout(config, {}).parameters) {
    counts.total += parameter.numel();
  }
  int64_t unused = 0;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (!config.is_dense(layer))
      unused += config.routed_experts(layer) - config.routed_top_k(layer);
  }
  counts.active = counts.total - unused * 3 * config.d_model * config.d_expert;
  return counts;
}

}  // namespace emo
