// What the model computes on: rows of tokens as tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace emo {

// The rows that one pass takes at once: in training all or some of a rank's rows of a micro-batch,
// in an evaluation any.
// Spans are ranges of the flattened tokens, given by cumulative ends with a leading 0; none crosses
// a row's end. B may be 0: such a rank still takes part in every collective.
struct Slice {
  at::Tensor tokens;          // i32 [B, S]
  at::Tensor labels;          // i32 [B, S], -100: not predicted
  at::Tensor positions;       // i32 [B, S] for the rotary embedding
  at::Tensor attention_ends;  // i32 [Na + 1]
  at::Tensor routing_ends;    // i32 [Nr + 1]
  at::Tensor sequence_index;  // i64 [Nr] of the row that the routing span lies in, over the run
  at::Tensor ordinal;         // i32 [Nr] of the routing span in its row

  int64_t num_tokens() const { return tokens.numel(); }  // T
  int64_t num_labels() const {
    const auto* label = labels.const_data_ptr<int32_t>();
    return std::count_if(label, label + labels.numel(), [](int32_t l) { return l >= 0; });
  }
};

// One micro-batch of a step: a rank's rows of it, cut into one slice or more, as many on every
// rank. The losses see the whole of it, however it is cut.
using MicroBatch = std::vector<Slice>;

}  // namespace emo
