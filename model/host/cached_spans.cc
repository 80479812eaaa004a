#include "model/host/cached_spans.h"

#include <c10/util/Exception.h>

#include <cstring>

namespace emo {

std::vector<CachedSpan> append(KeyValueCache* cache, int64_t layer, const int32_t* span_ends,
                               const float* qkv) {
  const at::Tensor& memory = cache->layers[layer];
  const int64_t row = memory.size(2);  // 2 D
  std::vector<CachedSpan> spans;
  for (size_t i = 0; i < cache->slots.size(); ++i) {
    const int64_t slot = cache->slots[i];
    const int64_t length = cache->lengths[slot];
    TORCH_CHECK(length + span_ends[i + 1] - span_ends[i] <= cache->capacity, "a cache of ",
                cache->capacity, " tokens is full");
    float* keys_values = memory.mutable_data_ptr<float>() + slot * cache->capacity * row;
    float* to = keys_values + length * row;
    for (int64_t t = span_ends[i]; t < span_ends[i + 1]; ++t, to += row) {
      std::memcpy(to, qkv + t * row / 2 * 3 + row / 2, row * sizeof(float));
    }
    spans.push_back({keys_values, length});
  }
  return spans;
}

}  // namespace emo
