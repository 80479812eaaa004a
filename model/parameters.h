// The parameters of a model: their Hugging Face names and shapes, and where they lie in this rank's
// two flat buffers, one for what every rank holds (dense) and one for its routed experts.
//
// Gradients and optimizer state use the same layout, so that clipping, the optimizer and the
// reductions are single passes over flat memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "parallel/expert_exchange.h"
#include "parallel/mesh.h"
#include "parallel/sharding.h"

namespace emo {

enum class ParameterBuffer { kDense, kExperts };

struct ParameterInfo {
  std::string name;            // as Hugging Face's EMO class calls it (emo-facts 7.2)
  std::vector<int64_t> shape;  //
  ParameterBuffer buffer;
  int64_t offset;  // in floats
  int64_t numel() const;
};

// Both buffers have the same buckets, in the order in which a forward pass needs them: the
// embedding, every layer, the final norm with the head. Those without parameters are empty.
constexpr size_t kEmbeddingBucket = 0;
constexpr size_t layer_bucket(int64_t layer) { return static_cast<size_t>(layer) + 1; }

// The order in which ranks hold a model's routed experts, [L][E]: the expert at each position
// (parallel/expert_exchange.h). Layers that are empty, or not there, go by number. It changes where
// experts are computed, never what.
using ExpertOrder = std::vector<std::vector<int32_t>>;

struct ParameterLayout {
  std::vector<ParameterInfo> parameters;    // in order of buffer and offset
  Sharding dense;                           // over all ranks
  Sharding experts;                         // over the dp ranks that hold the same experts
  std::vector<ExpertPlacement> placements;  // [L] of routed experts; experts 0 in a dense layer
  int64_t ep_rank = 0;
  size_t head_bucket() const { return dense.buckets.size() - 1; }
};

// The bias of a layer's router (ModelConfig::selection_bias), a number for each row of its matrix,
// 0 for shared experts: in the name that DeepSeek's classes have for it.
std::string selection_bias_name(int64_t layer);
bool is_selection_bias(const std::string& name);

// What the rank at this position holds.
ParameterLayout make_layout(const ModelConfig& config, const GridPosition& position,
                            const ExpertOrder& order = {});

// The same parameters with the buckets folded (parallel/sharding.h) of each buffer that several
// ranks hold: for gradients, of which a rank then keeps a few buckets.
ParameterLayout fold_buckets(const ParameterLayout& layout);

// Two flat buffers in a layout: parameters, gradients or moments; fp32 on the host unless said.
struct FlatBuffers {
  at::Tensor dense;    // [layout.dense.size()]
  at::Tensor experts;  // [layout.experts.size()]
};
FlatBuffers make_buffers(const ParameterLayout& layout,
                         const at::TensorOptions& options = at::kFloat);  // zeros

// The memory of one parameter in fp32 buffers on the host.
float* parameter_data(const ParameterInfo& parameter, const FlatBuffers& buffers);

// Every matrix: normal, standard deviation init_std, cut at three of them (emo-facts 2.5); norms 1;
// biases 0. A function of the seed, the parameter's name and the element's index, so the same on
// every layout.
void initialise(const ModelConfig& config, const ParameterLayout& layout, FlatBuffers* parameters);

// Parameters of the whole model, and of those how many one token uses (input embedding included).
struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;
};
ParameterCounts count_parameters(const ModelConfig& config);

}  // namespace emo
