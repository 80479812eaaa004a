// A model of which only some experts are left: the same tensors, fewer of them, the kept experts
// numbered anew in their old order, and of each router the rows of those that are kept.
#pragma once

#include "absl/status/statusor.h"
#include "train/model_folder/model_files.h"
#include "train/subset/expert_subset.h"

namespace emo {

// The sizes of the cut model: its counts of experts, and top_k = min(top_k, the most that a layer
// keeps) (emo-facts 5.2). `kept` fits the model (read_subset).
ModelConfig cut_config(const ModelConfig& config, const KeptExperts& kept);

// The tensors of the cut model. Nothing is copied but router rows. DataLoss that lists every
// router whose shape is not the model's; tensors that are missing stay missing.
absl::StatusOr<TensorFolder> cut_tensors(TensorFolder folder, const ModelConfig& config,
                                         const KeptExperts& kept);

// What a model is, whatever its folder is called and however its files are split: a SHA-256 over
// the names, types and shapes of its tensors and the first bytes of each.
std::string model_identity(const TensorFolder& folder);

}  // namespace emo
