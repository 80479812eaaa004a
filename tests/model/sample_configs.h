// Sizes of models, for tests.
#pragma once

#include "model/config.h"

namespace emo {

// Quick to compute, with nothing even: 13 routed experts are uneven on 2 and on 4 ranks.
inline ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.d_model = 24;
  config.n_layers = 3;
  config.n_heads = 2;
  config.d_expert = 10;
  config.num_experts = 14;
  config.num_shared_experts = 1;
  config.top_k = 4;
  config.rope_theta = 10000;
  return config;
}

// The released model: 1B active, 14B parameters (emo-facts 0).
inline ModelConfig released_config() {
  ModelConfig config;
  config.vocab_size = 100352;
  config.d_model = 2048;
  config.n_layers = 16;
  config.n_heads = 16;
  config.d_expert = 1024;
  config.num_experts = 128;
  config.top_k = 8;
  return config;
}

}  // namespace emo
