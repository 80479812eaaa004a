#include "train/step/batch_tensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

namespace emo {
namespace {

template <typename T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType type, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(type));
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<T>());
  return tensor;
}

at::Tensor cumulative(const std::vector<int32_t>& ends) {
  std::vector<int32_t> with_zero = {0};
  with_zero.insert(with_zero.end(), ends.begin(), ends.end());
  return tensor_of(with_zero, at::kInt, {static_cast<int64_t>(with_zero.size())});
}

}  // namespace

Slice to_tensors(const Batch& batch) {
  const auto spans = static_cast<int64_t>(batch.routing_ends.size());
  std::vector<int64_t> sequence;
  std::vector<int32_t> ordinal;
  int64_t begin = 0;
  int64_t last_row = -1;
  for (const int32_t end : batch.routing_ends) {
    const int64_t row = begin / batch.sequence_length;
    ordinal.push_back(row == last_row ? ordinal.back() + 1 : 0);
    sequence.push_back(batch.sequence_index[row]);
    last_row = row;
    begin = end;
  }
  std::vector<int32_t> positions(
      batch.tokens.size());  // they run through the row, as the reference's
  for (size_t t = 0; t < positions.size(); ++t) {
    positions[t] = static_cast<int32_t>(static_cast<int64_t>(t) % batch.sequence_length);
  }
  const std::vector<int64_t> shape = {batch.rows, batch.sequence_length};
  return {tensor_of(batch.tokens, at::kInt, shape), tensor_of(batch.labels, at::kInt, shape),
          tensor_of(positions, at::kInt, shape),    cumulative(batch.attention_ends),
          cumulative(batch.routing_ends),           tensor_of(sequence, at::kLong, {spans}),
          tensor_of(ordinal, at::kInt, {spans})};
}

int64_t divisor_share(const Batch& batch) {
  const auto labels = std::count_if(batch.labels.begin(), batch.labels.end(),
                                    [](int32_t label) { return label != kIgnoredLabel; });
  const auto filtered = std::count(batch.filtered.begin(), batch.filtered.end(), 1);
  return static_cast<int64_t>(labels) + static_cast<int64_t>(filtered) * batch.sequence_length;
}

}  // namespace emo
