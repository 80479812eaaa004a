// pruning_metadata.json: which experts of which model a cut model consists of (emo-facts 5.2).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "train/model_folder/model_folder.h"
#include "train/subset/expert_subset.h"

namespace emo {

constexpr char kPruningFile[] = "pruning_metadata.json";

// The keys of the reference, and ours: the model's identity and the labels.
OrderedJson pruning_json(const SubsetFile& subset, const ModelConfig& config);

// The file's text, or "" where the folder has none: its model was not cut.
absl::StatusOr<std::string> pruning_of(const std::string& folder);

// Adds the file of a cut model in `folder` to the texts of a folder made from it.
absl::Status carry_pruning(const std::string& folder, TextFiles* texts);

// What a cut model's folder says, for its parent. NotFound where the folder was not cut; other
// errors as read_subset's.
absl::StatusOr<SubsetFile> read_pruning(const std::string& folder, const ModelConfig& parent,
                                        const std::string& parent_identity);

}  // namespace emo
