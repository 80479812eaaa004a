// A slice of a micro-batch in a device's memory, with what the host knows of it: spans and pool
// sizes are made on the host and copied once, without waiting for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/config.h"
#include "model/device/kernels/plain_attention.h"
#include "model/device/kernels/spans.h"
#include "model/host/key_value_cache.h"
#include "model/micro_batch.h"
#include "model/pass.h"

namespace emo::device {

// Decoding: where a slice's tokens stand among the rows [slots * capacity] of a cache.
struct CachedTokens {
  at::Tensor rows;  // i64 [T] their own; undefined where there is no cache
  TokenSpans keys;  // what they see
};

struct DeviceSlice {
  int64_t T = 0;
  int64_t num_labels = 0;                 // of T tokens
  at::Tensor tokens, labels, positions;   // i32 [T]
  at::Tensor sorted_tokens, token_order;  // i32 [T], i64 [T], for embed_backward
  at::Tensor attention_ends;              // i32 [Na + 1]
  TokenSpans attention_spans;             // of each token
  int64_t longest_attention_span = 0;     //
  Spans routing;                          //
  at::Tensor pool_sizes;                  // i32 [L, Nr] as drawn
  CachedTokens cached;
};

// RouterInput::labels under the contract.
inline at::Tensor loss_labels(const RoutingContract& contract, const DeviceSlice& slice) {
  return contract.losses_over == LossTokens::kLabelled ? slice.labels : at::Tensor();
}

// `to` in a device's memory; from pinned memory where that lets the host go on.
at::Tensor to_device(const at::Tensor& tensor, at::Device device);

// Draws the pass's pool sizes. Fails for tokens outside the vocabulary and
// positions outside [0, positions).
DeviceSlice make_device_slice(const Slice& slice, const ModelConfig& config,
                              const RoutingContract& contract, const PassSettings& settings,
                              int64_t positions, at::Device device);

// Of the slice's attention spans, which go on in the cache's slots. Fails where a slot is full.
CachedTokens cached_tokens(const Slice& slice, const KeyValueCache& cache, at::Device device);

}  // namespace emo::device
