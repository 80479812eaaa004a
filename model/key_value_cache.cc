#include "model/key_value_cache.h"

#include <ATen/ops/empty.h>

namespace emo {

KeyValueCache::KeyValueCache(const ModelConfig& config, int64_t sequences, int64_t tokens,
                             const at::TensorOptions& options)
    : capacity(tokens), lengths(sequences, 0) {
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    layers.push_back(at::empty({sequences, tokens, 2 * config.d_model}, options));
  }
}

void advance(KeyValueCache* cache, const int32_t* span_ends) {
  for (size_t i = 0; i < cache->slots.size(); ++i) {
    cache->lengths[cache->slots[i]] += span_ends[i + 1] - span_ends[i];
  }
}

}  // namespace emo
