#include "data/files/json.h"

#include <set>

#include "data/files/file_system.h"

namespace emo {
namespace {

constexpr int kMaxDepth = 64;

// Thrown inside nlohmann's parser, which has no other way to be stopped; never leaves parse_json.
struct Refused {
  std::string why;
};

}  // namespace

absl::StatusOr<Json> parse_json(absl::string_view text, const std::string& where,
                                TooDeep too_deep) {
  std::vector<std::set<std::string>> keys;  // by depth, of the object that is open there
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth && too_deep == TooDeep::kRefused) {
      throw Refused{"nested deeper than 64 levels"};
    }
    if (depth > kMaxDepth) return false;
    if (event == Json::parse_event_t::object_start) {
      keys.resize(depth);
      keys.emplace_back();
    }
    if (event == Json::parse_event_t::key &&
        !keys[depth - 1].insert(parsed.get<std::string>()).second) {
      throw Refused{"key '" + parsed.get<std::string>() + "' stands twice"};
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(where, ": not valid JSON: ", error.what()));
  } catch (const Refused& refused) {
    return absl::DataLossError(absl::StrCat(where, ": not valid JSON: ", refused.why));
  }
}

std::string to_text(const OrderedJson& json) {
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string to_line(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

absl::StatusOr<Json> read_json_file(const std::string& path, uint64_t max_bytes) {
  absl::StatusOr<std::string> text = read_file(path, max_bytes);
  if (!text.ok()) return text.status();
  return parse_json(*text, path);
}

}  // namespace emo
