// Decoding: keys and values of the tokens that a model has seen, so that a forward pass over those
// that follow need not see them again.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace emo {

// Room for `sequences` sequences, each in a slot of its own. Spans of a pass say which slots they
// go on in; a slot whose length is set to 0 is free for another sequence.
struct KeyValueCache {
  int64_t capacity = 0;            // tokens of a sequence
  std::vector<int64_t> lengths;    // [slots] tokens that are in it
  std::vector<at::Tensor> layers;  // [L] [slots, capacity, 2 D]
  std::vector<int64_t> slots;      // [N] of the next pass's attention spans, each at most once

  // Contents undefined. `options`: f32 on the host, or where a device computes, in its type.
  KeyValueCache(const ModelConfig& config, int64_t sequences, int64_t tokens,
                const at::TensorOptions& options = at::kFloat);
};

// After the last layer: the spans' tokens now count as seen.
void advance(KeyValueCache* cache, const int32_t* span_ends);

}  // namespace emo
