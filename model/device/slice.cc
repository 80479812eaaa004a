#include "model/device/slice.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "model/host/document_pools.h"
#include "model/pool_sizes.h"

namespace emo::device {
namespace {

at::Tensor tensor_of(const std::vector<int32_t>& values, at::IntArrayRef shape) {
  const at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(at::kInt));
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int32_t>());
  return tensor;
}
at::Tensor tensor_of(const std::vector<int32_t>& values) {
  return tensor_of(values, {static_cast<int64_t>(values.size())});
}

void check_range(const at::Tensor& values, int64_t end, const char* what) {
  const auto* value = values.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    TORCH_CHECK(value[i] >= 0 && value[i] < end, what, " ", value[i], ", must be below ", end);
  }
}

// Checks that ends [N + 1] cut T tokens; answers the longest span.
int64_t check_spans(const at::Tensor& ends, int64_t T, const char* what) {
  const auto* end = ends.const_data_ptr<int32_t>();
  const int64_t N = ends.numel() - 1;
  TORCH_CHECK(N >= 0 && end[0] == 0 && end[N] == T, what, " spans do not end at ", T);
  int64_t longest = 0;
  for (int64_t span = 0; span < N; ++span) {
    TORCH_CHECK(end[span] < end[span + 1], what, " span ", span, " is empty");
    longest = std::max<int64_t>(longest, end[span + 1] - end[span]);
  }
  return longest;
}

TokenSpans token_spans(const at::Tensor& ends, int64_t T, at::Device device) {
  const auto* end = ends.const_data_ptr<int32_t>();
  std::vector<int32_t> begin_of(T), end_of(T);
  for (int64_t span = 0; span + 1 < ends.numel(); ++span) {
    std::fill(begin_of.begin() + end[span], begin_of.begin() + end[span + 1], end[span]);
    std::fill(end_of.begin() + end[span], end_of.begin() + end[span + 1], end[span + 1]);
  }
  return {to_device(tensor_of(begin_of), device), to_device(tensor_of(end_of), device)};
}

Spans routing_spans(const at::Tensor& ends, int64_t T, at::Device device) {
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

}  // namespace

at::Tensor to_device(const at::Tensor& tensor, at::Device device) {
  if (device.is_cpu()) return tensor;
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

CachedTokens cached_tokens(const Slice& slice, const KeyValueCache& cache, at::Device device) {
  const auto* ends = slice.attention_ends.const_data_ptr<int32_t>();
  const auto slots = static_cast<int64_t>(cache.lengths.size());
  TORCH_CHECK(slots * cache.capacity <= INT32_MAX, "a cache of ", slots, " x ", cache.capacity,
              " tokens is too large for a device");
  std::vector<int32_t> begin, end;
  const at::Tensor rows = at::empty({slice.num_tokens()}, at::TensorOptions().dtype(at::kLong));
  auto* row = rows.mutable_data_ptr<int64_t>();
  for (size_t span = 0; span < cache.slots.size(); ++span) {
    const int64_t first = cache.slots[span] * cache.capacity;
    const int64_t next = cache.lengths[cache.slots[span]];
    const int64_t tokens = ends[span + 1] - ends[span];
    TORCH_CHECK(next + tokens <= cache.capacity, "a cache of ", cache.capacity, " tokens is full");
    for (int64_t t = next; t < next + tokens; ++t) {
      *row++ = first + t;
      begin.push_back(static_cast<int32_t>(first));
      end.push_back(static_cast<int32_t>(first + t + 1));
    }
  }
  return {to_device(rows, device),
          {to_device(tensor_of(begin), device), to_device(tensor_of(end), device)}};
}

DeviceSlice make_device_slice(const Slice& slice, const ModelConfig& config,
                              const RoutingContract& contract, const PassSettings& settings,
                              int64_t positions, at::Device device) {
  const int64_t T = slice.num_tokens();
  const at::Tensor tokens = slice.tokens.reshape({-1});
  const at::Tensor labels = slice.labels.reshape({-1});
  check_range(tokens, config.vocab_size, "a token is");
  check_range(slice.positions, positions, "a position is");
  const auto* label = labels.const_data_ptr<int32_t>();
  TORCH_CHECK(std::all_of(label, label + T, [&](int32_t l) { return l < config.vocab_size; }),
              "a label outside the vocabulary");
  check_spans(slice.routing_ends, T, "routing");

  DeviceSlice d;
  d.T = T;
  d.num_labels = slice.num_labels();
  d.tokens = to_device(tokens, device);
  d.labels = to_device(labels, device);
  d.positions = to_device(slice.positions.reshape({-1}), device);
  std::tie(d.sorted_tokens, d.token_order) = at::sort(d.tokens, /*stable=*/true, 0, false);
  d.attention_ends = to_device(slice.attention_ends, device);
  d.attention_spans = token_spans(slice.attention_ends, T, device);
  d.longest_attention_span = check_spans(slice.attention_ends, T, "attention");
  d.routing = routing_spans(slice.routing_ends, T, device);
  std::vector<int32_t> sizes;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const std::vector<int64_t> drawn =
        draw_pool_sizes(settings.pool_of(contract), contract.pool_draw, settings.seed,
                        slice.sequence_index, slice.ordinal, layer, config.routed_experts(layer));
    sizes.insert(sizes.end(), drawn.begin(), drawn.end());
  }
  d.pool_sizes = to_device(tensor_of(sizes, {config.n_layers, d.routing.N}), device);
  return d;
}

}  // namespace emo::device
