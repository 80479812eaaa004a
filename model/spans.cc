#include "model/spans.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace emo {

std::vector<Piece> pieces_of(const int32_t* span_ends, int64_t spans) {
  std::vector<Piece> pieces;
  for (int64_t span = 0; span < spans; ++span) {
    for (int64_t begin = span_ends[span]; begin < span_ends[span + 1]; begin += kPieceTokens) {
      pieces.push_back({span, begin, std::min<int64_t>(begin + kPieceTokens, span_ends[span + 1])});
    }
  }
  return pieces;
}

Spans make_spans(const at::Tensor& ends, int64_t T, at::Device device) {
  const auto* end = ends.const_data_ptr<int32_t>();
  const int64_t N = ends.numel() - 1;
  const std::vector<Piece> pieces = pieces_of(end, N);
  std::vector<int32_t> span_of(T), piece_ends = {0}, first_piece(N + 1);
  for (const Piece& piece : pieces) {
    std::fill(span_of.begin() + piece.begin, span_of.begin() + piece.end,
              static_cast<int32_t>(piece.span));
    piece_ends.push_back(static_cast<int32_t>(piece.end));
    first_piece[piece.span + 1] = static_cast<int32_t>(piece_ends.size()) - 1;
  }
  return {to_device(ends, device),
          to_device(tensor_of(span_of), device),
          to_device(tensor_of(piece_ends), device),
          to_device(tensor_of(first_piece), device),
          N,
          static_cast<int64_t>(pieces.size())};
}

TokenSpans make_token_spans(const at::Tensor& ends, int64_t T, at::Device device) {
  const auto* end = ends.const_data_ptr<int32_t>();
  std::vector<int32_t> begin_of(T), end_of(T);
  for (int64_t span = 0; span + 1 < ends.numel(); ++span) {
    std::fill(begin_of.begin() + end[span], begin_of.begin() + end[span + 1], end[span]);
    std::fill(end_of.begin() + end[span], end_of.begin() + end[span + 1], end[span + 1]);
  }
  return {to_device(tensor_of(begin_of), device), to_device(tensor_of(end_of), device)};
}

at::Tensor to_device(const at::Tensor& tensor, at::Device device) {
  if (device.is_cpu()) return tensor;
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

at::Tensor tensor_of(const std::vector<int32_t>& values) {
  const at::Tensor tensor =
      at::empty({static_cast<int64_t>(values.size())}, at::TensorOptions().dtype(at::kInt));
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int32_t>());
  return tensor;
}

}  // namespace emo
