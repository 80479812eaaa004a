#include "train/subset/merge_models.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/host/bf16.h"
#include "train/model_folder/moe_tensor_name.h"

namespace emo {
namespace {

double number_at(const TensorRecord& record, size_t i) {
  if (record.dtype == "F32") {
    float value = 0;
    std::memcpy(&value, record.bytes.data() + 4 * i, 4);
    return value;
  }
  Bf16 value;
  std::memcpy(&value, record.bytes.data() + 2 * i, 2);
  return widen(value);
}

void append_number(const std::string& dtype, double value, std::string* bytes) {
  const auto number = static_cast<float>(value);
  if (dtype == "F32") {
    bytes->append(reinterpret_cast<const char*>(&number), 4);
  } else {
    const Bf16 rounded = narrow<Bf16>(number);
    bytes->append(reinterpret_cast<const char*>(&rounded), 2);
  }
}

// Row `to` of the result is parent's row `to`, mixed with row `from` of tuned where from >= 0.
std::string mix_rows(const TensorRecord& parent, const TensorRecord& tuned,
                     const std::vector<int64_t>& from, double alpha) {
  const size_t elements = parent.bytes.size() / static_cast<size_t>(dtype_size(parent.dtype));
  const size_t row = elements / from.size();
  std::string bytes;
  bytes.reserve(parent.bytes.size());
  for (size_t to = 0; to < from.size(); ++to) {
    for (size_t i = 0; i < row; ++i) {
      const double old = number_at(parent, to * row + i);
      const double value = from[to] < 0
                               ? old
                               : alpha * number_at(tuned, static_cast<size_t>(from[to]) * row + i) +
                                     (1 - alpha) * old;
      append_number(parent.dtype, value, &bytes);
    }
  }
  return bytes;
}

// What the parent's tensor takes over: a tensor of tuned, and which of its rows; none: nothing.
struct Source {
  std::string name;           // in tuned; "" for nothing
  std::vector<int64_t> rows;  // of routers: the row of tuned for each of the parent's, or -1
};

Source source_of(const std::string& name, const ModelConfig& config, const KeptExperts& kept,
                 const MergeOptions& options) {
  const std::optional<MoeTensorName> parsed = parse_moe_tensor_name(name);
  if (!parsed || config.is_dense(parsed->layer)) return {options.rest ? name : "", {}};
  const std::vector<int64_t>& experts = kept[parsed->layer];
  const auto index_of = [&](int64_t expert) -> int64_t {
    const auto found = std::lower_bound(experts.begin(), experts.end(), expert);
    return found != experts.end() && *found == expert ? found - experts.begin() : -1;
  };
  if (parsed->expert) {
    const int64_t index = index_of(*parsed->expert);
    const bool shared = *parsed->expert >= config.routed_experts(parsed->layer);
    if (index < 0 || (shared && !options.shared)) return {};
    return {moe_tensor_name({parsed->layer, index, parsed->rest}), {}};
  }
  if (!options.router) return {};
  Source source{name, {}};
  for (int64_t e = 0; e < config.experts(parsed->layer); ++e) source.rows.push_back(index_of(e));
  return source;
}

}  // namespace

absl::StatusOr<TensorFolder> merge_models(TensorFolder parent, TensorFolder tuned,
                                          const ModelConfig& config, const KeptExperts& kept,
                                          const MergeOptions& options) {
  std::map<std::string, TensorRecord> tensors;
  std::deque<std::string> owned;
  std::vector<std::string> wrong;
  for (const auto& [name, record] : parent.tensors()) {
    const Source source = source_of(name, config, kept, options);
    if (source.name.empty()) {
      tensors.emplace(name, *record);
      continue;
    }
    const TensorRecord* found = tuned.find(source.name);
    std::vector<int64_t> shape = record->shape;
    if (!source.rows.empty()) {
      shape[0] = static_cast<int64_t>(
          std::count_if(source.rows.begin(), source.rows.end(), [](int64_t r) { return r >= 0; }));
    }
    if (found == nullptr || found->shape != shape) {
      wrong.push_back(absl::StrCat(
          source.name, found == nullptr ? " is missing" : " is " + shape_string(found->shape),
          ", expected ", shape_string(shape)));
      continue;
    }
    if (source.rows.empty() && options.alpha == 1 && found->dtype == record->dtype) {
      tensors.emplace(name, *found);
      continue;
    }
    for (const TensorRecord* one : {record, found}) {
      if (one->dtype != "F32" && one->dtype != "BF16") {
        wrong.push_back(absl::StrCat(name, " is ", one->dtype, ", expected F32 or BF16"));
      }
    }
    if (!wrong.empty()) continue;
    owned.push_back(mix_rows(*record, *found,
                             source.rows.empty() ? std::vector<int64_t>{0} : source.rows,
                             options.alpha));
    tensors.emplace(name, TensorRecord{record->dtype, record->shape, owned.back()});
  }
  if (!wrong.empty()) {
    return absl::DataLossError(
        absl::StrCat(tuned.where(), ": tensors do not fit:\n  ", absl::StrJoin(wrong, "\n  ")));
  }
  TensorFolder merged = std::move(parent).renamed(tensors, std::move(owned));
  merged.keep_open(std::move(tuned));
  return merged;
}

}  // namespace emo
