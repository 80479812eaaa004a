// Decoding on the host: a pass's keys and values join those that a cache holds.
#pragma once

#include <cstdint>
#include <vector>

#include "model/host/attention.h"
#include "model/key_value_cache.h"

namespace emo {

// Copies the keys and values of the spans [span_ends[i], span_ends[i + 1]) of qkv f32 [T, 3 D],
// rotated already, behind what their slots hold in this layer, and says where each span's now are.
// Fails where a slot is full. The lengths stay until advance().
std::vector<CachedSpan> append(KeyValueCache* cache, int64_t layer, const int32_t* span_ends,
                               const float* qkv);

}  // namespace emo
