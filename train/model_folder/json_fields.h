// The fields of a JSON object, read so that everything wrong is reported at once.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "data/files/json.h"

namespace emo {

class JsonFields {
 public:
  // `json` must outlive this.
  JsonFields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  // Leaves *value alone where the field is wrong, or (optional) missing or null.
  template <typename T>
  void required(const char* key, T* value) {
    take(json_field<T>(json_, key, where_), value);
  }
  template <typename T>
  void optional(const char* key, T* value) {
    take(json_field_or<T>(json_, key, *value, where_), value);
  }

  void wrong(const std::string& what) { errors_.push_back(absl::StrCat(where_, ": ", what)); }
  // What this code does not do: anything but missing, null or `value`; anything but missing or
  // null.
  void refuse_unless(const char* key, const Json& value);
  void refuse_unless_null(const char* key);

  const Json& json() const { return json_; }
  // DataLoss with a line for each error.
  absl::Status status() const;

 private:
  template <typename T>
  void take(absl::StatusOr<T> read, T* value) {
    if (read.ok()) {
      *value = *std::move(read);
    } else {
      errors_.emplace_back(read.status().message());
    }
  }
  const Json& json_;
  std::string where_;
  std::vector<std::string> errors_;
};

}  // namespace emo
