// The routing spans of a micro-batch, as kernels read them.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// Made on the host, where spans are known, and copied once for a micro-batch. Pieces are those of
// model/host/document_pools.h: parts of one span, so that sums over documents have a fixed order.
struct Spans {
  at::Tensor ends;         // i32 [N + 1] the first 0, the last T
  at::Tensor span_of;      // i32 [T] of each token
  at::Tensor piece_ends;   // i32 [pieces + 1]
  at::Tensor first_piece;  // i32 [N + 1] of each span
  int64_t N = 0;
  int64_t pieces = 0;
};

}  // namespace emo::device
