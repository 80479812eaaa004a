// A slice where a back end computes, with what the host knows of it: spans and pool sizes are made
// on the host and copied once, without waiting for a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/config.h"
#include "model/key_value_cache.h"
#include "model/micro_batch.h"
#include "model/spans.h"

namespace emo {

// Decoding on a device: where a slice's tokens stand among the rows [slots * capacity] of a cache.
struct CachedTokens {
  at::Tensor rows;  // i64 [T] their own; undefined where there is no cache
  TokenSpans keys;  // what they see
};

struct PlacedSlice {
  int64_t T = 0;
  int64_t row_tokens = 0;                // S
  int64_t num_labels = 0;                // of T tokens
  at::Tensor tokens, labels, positions;  // i32 [T]
  at::Tensor attention_ends;             // i32 [Na + 1]
  TokenSpans attention_spans;            // of each token
  int64_t longest_attention_span = 0;    //
  Spans routing;                         //
  at::Tensor pool_sizes;                 // i32 [L, Nr] as drawn
  at::Tensor sequence_index;             // i64 [Nr] of the row of each; undefined without jitter
  CachedTokens cached;
};

// By what pool sizes are drawn.
struct PoolDraws {
  const PoolPolicy& policy;
  PoolDraw draw;
  uint64_t seed;
};

// Draws the pass's pool sizes. Fails for tokens or labels outside the vocabulary, positions outside
// [0, positions), and spans that do not cut the tokens.
PlacedSlice place(const Slice& slice, const ModelConfig& config, const PoolDraws& pools,
                  int64_t positions, at::Device device);

// Of the slice's attention spans, which go on in the cache's slots. Fails where a slot is full.
CachedTokens cached_tokens(const Slice& slice, const KeyValueCache& cache, at::Device device);

}  // namespace emo
