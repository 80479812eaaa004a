// Model folders of Hugging Face architectures that our model code can compute, and their names for
// our parameters:
// - emo: the reference's class (emo-facts 7), and an older name of it
// - olmoe: OlmoeForCausalLM of transformers: QK-norm, no shared expert, other names of norms
// - olmo2_noqknorm_prenorm: the reference's dense models
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "train/model_folder/hugging_face.h"

namespace emo {

enum class Architecture { kEmo, kOlmoe, kDense };

struct ForeignModel {
  Architecture architecture = Architecture::kEmo;
  ModelDescription description;
};

// From a folder's config.json. DataLoss that lists every field that says what this code does not
// do, by name.
absl::StatusOr<ForeignModel> read_architecture(const std::string& path);

// What the architecture calls a parameter of ours.
std::string name_in(Architecture architecture, const std::string& parameter);

// OK, or InvalidArgument that says why the architecture cannot hold the model.
absl::Status check_expressible(Architecture architecture, const ModelConfig& config);

// config.json of the architecture, without what depends on the tokenizer. The routing contract
// stands in that of emo only.
OrderedJson config_json_in(Architecture architecture, const ModelDescription& description);

// "emo", "olmoe", "olmo2_noqknorm_prenorm"; InvalidArgument for others.
absl::StatusOr<Architecture> parse_architecture(const std::string& model_type);

}  // namespace emo
