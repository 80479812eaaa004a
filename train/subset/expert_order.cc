#include "train/subset/expert_order.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"

namespace emo {

OrderedJson to_json(const ExpertOrder& order) { return {{"order", order}}; }

absl::StatusOr<ExpertOrder> read_expert_order(const std::string& path, const ModelConfig& config) {
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  absl::StatusOr<ExpertOrder> order = json_field<ExpertOrder>(*json, "order", path);
  if (!order.ok()) return order.status();
  std::vector<std::string> wrong;
  if (static_cast<int64_t>(order->size()) != config.n_layers) {
    wrong.push_back(absl::StrCat(order->size(), " layers, the model has ", config.n_layers));
  }
  for (int64_t layer = 0; wrong.empty() && layer < config.n_layers; ++layer) {
    const std::vector<int32_t>& experts = (*order)[layer];
    const bool dense = config.is_dense(layer);
    if (dense ? experts.empty() : is_permutation(experts, config.routed_experts(layer))) continue;
    wrong.push_back(dense ? absl::StrCat("layer ", layer, " is dense and has no experts to order")
                          : absl::StrCat("layer ", layer, ": ", experts.size(),
                                         " numbers that are not each of 0 to ",
                                         config.routed_experts(layer) - 1, " once"));
  }
  if (wrong.empty()) return order;
  return absl::DataLossError(absl::StrCat(
      path, ": the order of experts does not fit the model:\n  ", absl::StrJoin(wrong, "\n  ")));
}

absl::StatusOr<ExpertOrder> carried_expert_order(const std::string& checkpoint,
                                                 const ModelConfig& config) {
  const std::string path = checkpoint + "/" + kPlacementFile;
  if (!path_exists(path)) return ExpertOrder();
  return read_expert_order(path, config);
}

ExpertOrder expert_order_of(const ParameterLayout& layout) {
  ExpertOrder order;
  for (const ExpertPlacement& placement : layout.placements) order.push_back(placement.order);
  const bool by_number =
      std::all_of(order.begin(), order.end(), [](const auto& layer) { return layer.empty(); });
  return by_number ? ExpertOrder() : order;
}

}  // namespace emo
