#include "train/subset/pruning_metadata.h"

#include <algorithm>

#include "absl/strings/str_join.h"
#include "data/files/file_system.h"

namespace emo {

OrderedJson pruning_json(const SubsetFile& subset, const ModelConfig& config) {
  size_t keep = 0;
  for (const std::vector<int64_t>& layer : subset.experts_kept_per_layer) {
    keep = std::max(keep, layer.size());
  }
  return {{"original_model", subset.checkpoint},
          {"prune_keep_k", keep},
          {"num_shared_experts", config.num_shared_experts},
          {"pruning_method", subset.method},
          {"task", subset.labels.empty() ? OrderedJson(nullptr)
                                         : OrderedJson(absl::StrJoin(subset.labels, ","))},
          {"split", nullptr},
          {"num_calibration", subset.calibration.size()},
          {"num_shots_override", nullptr},
          {"prune_seed", subset.seed},
          {"identity", subset.identity},
          {"experts_kept_per_layer", subset.experts_kept_per_layer}};
}

absl::StatusOr<std::string> pruning_of(const std::string& folder) {
  const std::string path = folder + "/" + kPruningFile;
  if (!path_exists(path)) return std::string();
  return read_file(path, 1u << 28);
}

absl::Status carry_pruning(const std::string& folder, TextFiles* texts) {
  absl::StatusOr<std::string> pruning = pruning_of(folder);
  if (!pruning.ok()) return pruning.status();
  if (!pruning->empty()) texts->emplace_back(kPruningFile, *std::move(pruning));
  return absl::OkStatus();
}

absl::StatusOr<SubsetFile> read_pruning(const std::string& folder, const ModelConfig& parent,
                                        const std::string& parent_identity) {
  const std::string path = folder + "/" + kPruningFile;
  if (!path_exists(path)) {
    return absl::NotFoundError(folder + ": no " + kPruningFile +
                               "; only the folder of a cut model, or a checkpoint of a run that "
                               "started from one, says which experts it has");
  }
  return read_subset(path, parent, parent_identity);
}

}  // namespace emo
