#include "model/placed_slice.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "model/pool_sizes.h"

namespace emo {
namespace {

void check_range(const at::Tensor& values, int64_t begin, int64_t end, const char* what) {
  const auto* value = values.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    TORCH_CHECK(value[i] >= begin, what, " ", value[i], ", must not be negative");
    TORCH_CHECK(value[i] < end, what, " ", value[i], ", must be below ", end);
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

// i32 [L, N]
at::Tensor draw_all(const Slice& slice, const ModelConfig& config, const PoolDraws& pools) {
  std::vector<int32_t> sizes;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const std::vector<int64_t> drawn =
        draw_pool_sizes(pools.policy, pools.draw, pools.seed, slice.sequence_index, slice.ordinal,
                        layer, config.routed_experts(layer));
    sizes.insert(sizes.end(), drawn.begin(), drawn.end());
  }
  return tensor_of(sizes).view({config.n_layers, slice.routing_ends.numel() - 1});
}

}  // namespace

PlacedSlice place(const Slice& slice, const ModelConfig& config, const PoolDraws& pools,
                  int64_t positions, at::Device device) {
  const int64_t T = slice.num_tokens();
  check_range(slice.tokens, 0, config.vocab_size, "a token is");
  check_range(slice.labels, INT32_MIN, config.vocab_size, "a label is");
  check_range(slice.positions, 0, positions, "a position is");
  check_spans(slice.routing_ends, T, "routing");
  PlacedSlice placed;
  placed.T = T;
  placed.row_tokens = slice.tokens.size(-1);
  placed.num_labels = slice.num_labels();
  placed.tokens = to_device(slice.tokens.reshape({-1}), device);
  placed.labels = to_device(slice.labels.reshape({-1}), device);
  placed.positions = to_device(slice.positions.reshape({-1}), device);
  placed.attention_ends = to_device(slice.attention_ends, device);
  placed.attention_spans = make_token_spans(slice.attention_ends, T, device);
  placed.longest_attention_span = check_spans(slice.attention_ends, T, "attention");
  placed.routing = make_spans(slice.routing_ends, T, device);
  placed.pool_sizes = to_device(draw_all(slice, config, pools), device);
  return placed;
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

}  // namespace emo
