#include "train/subset/cut_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/parameters.h"
#include "train/model_folder/moe_tensor_name.h"

namespace emo {
namespace {

// The rows of a matrix, or numbers of a vector, one after another.
std::string take_rows(const TensorRecord& matrix, const std::vector<int64_t>& rows) {
  const size_t row_bytes = matrix.bytes.size() / static_cast<size_t>(matrix.shape[0]);
  std::string taken;
  taken.reserve(rows.size() * row_bytes);
  will_read(matrix.bytes);
  for (const int64_t row : rows) {
    taken.append(matrix.bytes.data() + static_cast<size_t>(row) * row_bytes, row_bytes);
  }
  return taken;
}

}  // namespace

ModelConfig cut_config(const ModelConfig& config, const KeptExperts& kept) {
  ModelConfig cut = config;
  cut.experts_per_layer.clear();
  cut.num_experts = 0;
  bool same = true;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    const auto count = static_cast<int64_t>(kept[layer].size());
    cut.experts_per_layer.push_back(count);
    if (config.is_dense(layer)) continue;
    same = same && (cut.num_experts == 0 || count == cut.num_experts);
    cut.num_experts = std::max(cut.num_experts, count);
  }
  if (same) cut.experts_per_layer.clear();
  cut.top_k = std::min(config.top_k, cut.num_experts);
  return cut;
}

absl::StatusOr<TensorFolder> cut_tensors(TensorFolder folder, const ModelConfig& config,
                                         const KeptExperts& kept) {
  std::map<std::string, TensorRecord> tensors;
  std::deque<std::string> owned;
  std::vector<std::string> wrong;
  for (const auto& [name, record] : folder.tensors()) {
    const std::optional<MoeTensorName> parsed = parse_moe_tensor_name(name);
    if (!parsed || parsed->layer >= config.n_layers || config.is_dense(parsed->layer)) {
      tensors.emplace(name, *record);
      continue;
    }
    const std::vector<int64_t>& experts = kept[parsed->layer];
    if (parsed->expert) {
      const auto found = std::lower_bound(experts.begin(), experts.end(), *parsed->expert);
      if (found == experts.end() || *found != *parsed->expert) continue;
      tensors.emplace(moe_tensor_name({parsed->layer, found - experts.begin(), parsed->rest}),
                      *record);
      continue;
    }
    std::vector<int64_t> shape = {config.experts(parsed->layer)};
    if (!is_selection_bias(name)) shape.push_back(config.d_model);
    if (record->shape != shape) {
      wrong.push_back(absl::StrCat(name, " is ", shape_string(record->shape), ", expected ",
                                   shape_string(shape)));
      continue;
    }
    owned.push_back(take_rows(*record, experts));
    shape[0] = static_cast<int64_t>(experts.size());
    tensors.emplace(name, TensorRecord{record->dtype, shape, owned.back()});
  }
  if (!wrong.empty()) {
    return absl::DataLossError(absl::StrCat(folder.where(), ": tensors do not fit the model:\n  ",
                                            absl::StrJoin(wrong, "\n  ")));
  }
  return std::move(folder).renamed(tensors, std::move(owned));
}

std::string model_identity(const TensorFolder& folder) {
  constexpr size_t kFirstBytes = 256;
  Sha256 hash;
  for (const auto& [name, record] : folder.tensors()) {
    hash.update(absl::StrCat(name, " ", record->dtype, " ", shape_string(record->shape), "\n"));
    will_read(record->bytes.substr(0, kFirstBytes));
    hash.update(record->bytes.substr(0, kFirstBytes));
  }
  return hash.hex_digest();
}

}  // namespace emo
