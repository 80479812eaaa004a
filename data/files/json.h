// JSON from the outside world: parsed with caps, read with errors that name the place.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace emo {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keys keep their order: what people read

// What stands in more than 64 lists and objects: an error, or left out, where nothing that is asked
// for can stand so deep.
enum class TooDeep { kRefused, kDropped };

// DataLoss naming `where` (a file, or file:line) for bad syntax, keys that stand twice in one
// object and, unless it is dropped, what is nested too deep.
absl::StatusOr<Json> parse_json(absl::string_view text, const std::string& where,
                                TooDeep too_deep = TooDeep::kRefused);

// read_file + parse_json. Files above `max_bytes` are refused.
absl::StatusOr<Json> read_json_file(const std::string& path, uint64_t max_bytes = 256u << 20);

// As a file or a report holds it: indented, with a newline at the end. Bytes that are not UTF-8, as
// paths may have, become U+FFFD.
std::string to_text(const OrderedJson& json);

// The same on one line, of a file of such lines.
std::string to_line(const OrderedJson& json);

// `object[key]` as a T. DataLoss "<where>: '<key>' is missing" or "... is <found>, expected <T>".
template <typename T>
absl::StatusOr<T> json_field(const Json& object, const std::string& key, const std::string& where) {
  if (!object.is_object() || !object.contains(key)) {
    return absl::DataLossError(absl::StrCat(where, ": field '", key, "' is missing"));
  }
  const Json& value = object[key];
  bool fits = false;
  const char* expected = "another type";
  if constexpr (std::is_same_v<T, bool>) {
    fits = value.is_boolean(), expected = "true or false";
  } else if constexpr (std::is_integral_v<T>) {
    expected = "an integer that fits";
    fits = value.is_number_unsigned()  ? std::in_range<T>(value.get<uint64_t>())
           : value.is_number_integer() ? std::in_range<T>(value.get<int64_t>())
                                       : false;
  } else if constexpr (std::is_floating_point_v<T>) {
    fits = value.is_number(), expected = "a number";
  } else if constexpr (std::is_same_v<T, std::string>) {
    fits = value.is_string(), expected = "a string";
  } else {
    fits = true;
  }
  if (fits) {
    try {
      return value.get<T>();
    } catch (const Json::exception&) {
      // falls through: an element of a list has another type
    }
  }
  return absl::DataLossError(absl::StrCat(where, ": field '", key, "' is ",
                                          value.dump().substr(0, 60), ", expected ", expected));
}

// The same, with a default where the key is missing or null.
template <typename T>
absl::StatusOr<T> json_field_or(const Json& object, const std::string& key, T fallback,
                                const std::string& where) {
  if (!object.is_object() || !object.contains(key) || object[key].is_null()) return fallback;
  return json_field<T>(object, key, where);
}

}  // namespace emo
