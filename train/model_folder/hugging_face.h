// config.json of a model folder: the Hugging Face config of model_type emo (emo-facts 7.1), with
// our routing contract beside it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "train/model_folder/model_description.h"

namespace emo {

// Sets the keys that say how many experts there are, and leaves all others.
void set_expert_counts(const ModelConfig& config, OrderedJson* json);

OrderedJson to_config_json(const ModelDescription& description);

// The same as text that other implementations' classes understand, without our contract.
OrderedJson architecture_json(const ModelDescription& description);

// DataLoss that lists every field that is wrong or says something that this code does not do.
// A config that other implementations of EMO wrote has no contract.
absl::StatusOr<ModelDescription> read_config_json(const std::string& path);

}  // namespace emo
