// pruning_metadata.json: which experts of which model a cut model consists of (emo-facts 5.2).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "train/expert_subset.h"

namespace emo {

constexpr char kPruningFile[] = "pruning_metadata.json";

// The keys of the reference, and ours: the model's identity and the labels.
OrderedJson pruning_json(const SubsetFile& subset, const ModelConfig& config);

// What a cut model's folder says, for its parent. NotFound where the folder was not cut; other
// errors as read_subset's.
absl::StatusOr<SubsetFile> read_pruning(const std::string& folder, const ModelConfig& parent,
                                        const std::string& parent_identity);

}  // namespace emo
