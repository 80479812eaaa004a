// The parameters, or gradients, of a model as tensors: views of flat buffers in the layout of
// model/parameters.h, on any device, of any type.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/config.h"
#include "model/parameters.h"

namespace emo {

// The matrices of one SwiGLU feed-forward.
struct FeedForwardWeights {
  at::Tensor gate_up;  // [2 F, D]
  at::Tensor down;     // [D, F]
};

struct LayerWeights {
  at::Tensor attention_norm;               // [D]
  at::Tensor qkv;                          // [3 D, D]
  at::Tensor q_norm, k_norm;               // [D]; undefined without ModelConfig::qk_norm
  at::Tensor attention_out;                // [D, D]
  at::Tensor feed_forward_norm;            // [D]
  at::Tensor router;                       // [E, D]; undefined in a dense layer
  at::Tensor selection_bias;               // [E]; undefined without ModelConfig::selection_bias
  std::vector<FeedForwardWeights> always;  // shared experts, or the dense layer's one
  FeedForwardWeights routed;               // [experts here, 2 F, D], [experts here, D, F]
};

struct ModelWeights {
  at::Tensor embedding;  // [V, D]
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [D]
  at::Tensor head;        // [V, D]
};

// Views, which keep the buffers alive.
ModelWeights bind_weights(const ModelConfig& config, const ParameterLayout& layout,
                          const FlatBuffers& buffers);

}  // namespace emo
