#include "model/device/kernels/exchange_index.h"

#include "model/device/kernel.h"

namespace emo::device {

void count_pairs(const at::Tensor& experts, const at::Tensor& bounds, const at::Tensor& pairs) {
  const int64_t T = experts.size(0);
  const int64_t K = experts.size(1);
  const auto* expert = experts.const_data_ptr<int32_t>();
  const auto* bound = bounds.const_data_ptr<int32_t>();
  auto* count_of = pairs.mutable_data_ptr<int32_t>();
  for_each(experts.device(), pairs.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t part = i / T;
    int32_t count = 0;
    for (int64_t slot = i % T * K; slot < i % T * K + K; ++slot) {
      count += expert[slot] >= bound[2 * part] && expert[slot] < bound[2 * part + 1] ? 1 : 0;
    }
    count_of[i] = count;
  });
}

void number_rows(const at::Tensor& pairs, const at::Tensor& running, const at::Tensor& row_of,
                 const at::Tensor& token_of_row, const at::Tensor& part_of_row) {
  const int64_t T = pairs.size(1);
  const auto* count = pairs.const_data_ptr<int32_t>();
  const auto* sum = running.const_data_ptr<int64_t>();
  auto* row = row_of.mutable_data_ptr<int32_t>();
  auto* token = token_of_row.mutable_data_ptr<int32_t>();
  auto* part = part_of_row.mutable_data_ptr<int32_t>();
  for_each(pairs.device(), pairs.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    row[i] = -1;
    if (count[i] == 0) return;
    const int64_t number = sum[i] - 1;
    row[i] = static_cast<int32_t>(number);
    token[number] = static_cast<int32_t>(i % T);
    part[number] = static_cast<int32_t>(i / T);
  });
}

void pack_records(const at::Tensor& experts, const at::Tensor& weights, const at::Tensor& bounds,
                  const at::Tensor& token_of_row, const at::Tensor& part_of_row,
                  const at::Tensor& records) {
  const int64_t K = experts.size(1);
  const auto* expert = experts.const_data_ptr<int32_t>();
  const auto* weight = weights.const_data_ptr<float>();
  const auto* bound = bounds.const_data_ptr<int32_t>();
  const auto* token = token_of_row.const_data_ptr<int32_t>();
  const auto* part = part_of_row.const_data_ptr<int32_t>();
  auto* record = records.mutable_data_ptr<float>();
  for_each(experts.device(), records.size(0) * K, [=] EMO_HOST_DEVICE(int64_t i) {
    const int64_t row = i / K;
    const int64_t slot = token[row] * K + i % K;
    const int32_t begin = bound[2 * part[row]];
    const bool there = expert[slot] >= begin && expert[slot] < bound[2 * part[row] + 1];
    float* at = record + row * 2 * K + i % K;
    at[0] = there ? static_cast<float>(expert[slot] - begin) : -1.0f;
    at[K] = there ? weight[slot] : 0.0f;
  });
}

void unpack_records(const at::Tensor& records, int64_t none, const at::Tensor& keys,
                    const at::Tensor& weights) {
  const int64_t K = keys.size(1);
  const auto* record = records.const_data_ptr<float>();
  auto* key = keys.mutable_data_ptr<int32_t>();
  auto* weight = weights.mutable_data_ptr<float>();
  for_each(records.device(), keys.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    const float* at = record + i / K * 2 * K + i % K;
    key[i] = static_cast<int32_t>(at[0] < 0 ? static_cast<float>(none) : at[0]);
    weight[i] = at[K];
  });
}

void find_positions(const at::Tensor& experts, const at::Tensor& position_of,
                    const at::Tensor& positions) {
  const auto* expert = experts.const_data_ptr<int32_t>();
  const auto* position = position_of.const_data_ptr<int32_t>();
  auto* found = positions.mutable_data_ptr<int32_t>();
  for_each(experts.device(), experts.numel(),
           [=] EMO_HOST_DEVICE(int64_t i) { found[i] = expert[i] < 0 ? -1 : position[expert[i]]; });
}

void local_keys(const at::Tensor& experts, int64_t none, const at::Tensor& keys) {
  const auto* expert = experts.const_data_ptr<int32_t>();
  auto* key = keys.mutable_data_ptr<int32_t>();
  for_each(experts.device(), experts.numel(), [=] EMO_HOST_DEVICE(int64_t i) {
    key[i] = expert[i] < 0 ? static_cast<int32_t>(none) : expert[i];
  });
}

void expert_ranges(const at::Tensor& sorted, int64_t multiple, const at::Tensor& begin,
                   const at::Tensor& padded) {
  const int64_t slots = sorted.size(0);
  const int64_t E = begin.size(0) - 1;
  const auto* key = sorted.const_data_ptr<int32_t>();
  auto* first = begin.mutable_data_ptr<int32_t>();
  auto* first_padded = padded.mutable_data_ptr<int32_t>();
  for_each(begin.device(), E + 1, [=] EMO_HOST_DEVICE(int64_t e) {
    int64_t low = 0;
    int64_t high = slots;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (key[middle] < e) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    first[e] = static_cast<int32_t>(low);
  });
  for_each(begin.device(), 1, [=] EMO_HOST_DEVICE(int64_t) {
    first_padded[0] = 0;
    for (int64_t e = 0; e < E; ++e) {
      const int64_t count = first[e + 1] - first[e];
      first_padded[e + 1] =
          first_padded[e] + static_cast<int32_t>((count + multiple - 1) / multiple * multiple);
    }
  });
}

void place_pairs(const at::Tensor& sorted, const at::Tensor& order, const at::Tensor& begin,
                 const at::Tensor& padded, const at::Tensor& slot_of_pair,
                 const at::Tensor& pair_of_slot) {
  const int64_t E = begin.size(0) - 1;
  const auto* key = sorted.const_data_ptr<int32_t>();
  const auto* stood = order.const_data_ptr<int64_t>();
  const auto* first = begin.const_data_ptr<int32_t>();
  const auto* first_padded = padded.const_data_ptr<int32_t>();
  auto* slot_of = slot_of_pair.mutable_data_ptr<int32_t>();
  auto* pair_of = pair_of_slot.mutable_data_ptr<int32_t>();
  for_each(sorted.device(), slot_of_pair.numel(),
           [=] EMO_HOST_DEVICE(int64_t i) { slot_of[i] = -1; });
  for_each(sorted.device(), sorted.size(0), [=] EMO_HOST_DEVICE(int64_t i) {
    const int32_t expert = key[i];
    if (expert >= E) {
      pair_of[stood[i]] = -1;
      return;
    }
    const int64_t pair = first_padded[expert] + i - first[expert];
    slot_of[pair] = static_cast<int32_t>(stood[i]);
    pair_of[stood[i]] = static_cast<int32_t>(pair);
  });
}

void take_slots(const at::Tensor& experts, const at::Tensor& bounds, const at::Tensor& row_of,
                const at::Tensor& returned, const at::Tensor& slots) {
  const int64_t T = experts.size(0);
  const int64_t K = experts.size(1);
  const int64_t P = bounds.size(0);
  const auto* expert = experts.const_data_ptr<int32_t>();
  const auto* bound = bounds.const_data_ptr<int32_t>();
  const auto* row = row_of.const_data_ptr<int32_t>();
  const auto* value = returned.const_data_ptr<float>();
  auto* slot = slots.mutable_data_ptr<float>();
  for_each(experts.device(), T * K, [=] EMO_HOST_DEVICE(int64_t i) {
    slot[i] = 0;
    for (int64_t part = 0; part < P; ++part) {
      if (expert[i] < bound[2 * part] || expert[i] >= bound[2 * part + 1]) continue;
      slot[i] = value[row[part * T + i / K] * K + i % K];
    }
  });
}

}  // namespace emo::device
