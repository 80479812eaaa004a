#include "train/model_folder/moe_tensor_name.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/parameters.h"

namespace emo {

std::optional<MoeTensorName> parse_moe_tensor_name(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  MoeTensorName parsed;
  if (parts.size() < 6 || parts[0] != "model" || parts[1] != "layers" || parts[3] != "mlp" ||
      !absl::SimpleAtoi(parts[2], &parsed.layer)) {
    return std::nullopt;
  }
  if (parts[4] == "gate" && (parts[5] == "weight" || is_selection_bias(name))) {
    parsed.rest = parts[5];
    return parsed;
  }
  int64_t expert = 0;
  if (parts.size() < 8 || parts[4] != "experts" || !absl::SimpleAtoi(parts[5], &expert)) {
    return std::nullopt;
  }
  parsed.expert = expert;
  parsed.rest = absl::StrJoin(parts.begin() + 6, parts.end(), ".");
  return parsed;
}

std::string moe_tensor_name(const MoeTensorName& parsed) {
  const std::string prefix = absl::StrCat("model.layers.", parsed.layer, ".mlp.");
  return parsed.expert ? absl::StrCat(prefix, "experts.", *parsed.expert, ".", parsed.rest)
                       : absl::StrCat(prefix, "gate.", parsed.rest);
}

}  // namespace emo
