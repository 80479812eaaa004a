#include "train/model_folder/json_fields.h"

#include "absl/strings/str_join.h"

namespace emo {

void JsonFields::refuse_unless(const char* key, const Json& value) {
  if (!json_.contains(key) || json_[key].is_null() || json_[key] == value) return;
  wrong(absl::StrCat(key, " is ", json_[key].dump().substr(0, 60), "; only ", value.dump(),
                     " is supported"));
}

void JsonFields::refuse_unless_null(const char* key) {
  if (!json_.contains(key) || json_[key].is_null()) return;
  wrong(absl::StrCat(key, " is ", json_[key].dump().substr(0, 60), ", which is not supported"));
}

absl::Status JsonFields::status() const {
  if (errors_.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrJoin(errors_, "\n"));
}

}  // namespace emo
