// The spans of a slice's tokens, as operations read them: documents that route together, and those
// that attend to each other.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace emo {

// A part of one routing span, at most kPieceTokens long. Pieces start at their span's start, so
// sums over a document are the same wherever in the batch it lies, and whatever the number of
// threads.
struct Piece {
  int64_t span;
  int64_t begin, end;  // tokens
};
constexpr int64_t kPieceTokens = 64;

// The pieces of spans given by ends [N + 1].
std::vector<Piece> pieces_of(const int32_t* span_ends, int64_t spans);

// Routing spans, with their pieces.
struct Spans {
  at::Tensor ends;         // i32 [N + 1] the first 0, the last T
  at::Tensor span_of;      // i32 [T] of each token
  at::Tensor piece_ends;   // i32 [pieces + 1]
  at::Tensor first_piece;  // i32 [N + 1] of each span
  int64_t N = 0;
  int64_t pieces = 0;
};

// From ends i32 [N + 1] of T tokens, on the host; copied to `device` without waiting for it.
Spans make_spans(const at::Tensor& ends, int64_t T, at::Device device);

// Spans by token: begin and end i32 [T] of the span that it lies in.
struct TokenSpans {
  at::Tensor begin, end;
};
TokenSpans make_token_spans(const at::Tensor& ends, int64_t T, at::Device device);

// `tensor` in a device's memory; from pinned memory where that lets the host go on.
at::Tensor to_device(const at::Tensor& tensor, at::Device device);

// Numbers as a tensor on the host.
at::Tensor tensor_of(const std::vector<int32_t>& values);

}  // namespace emo
