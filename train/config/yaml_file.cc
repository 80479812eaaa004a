#include "train/config/yaml_file.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"

namespace emo {
namespace {

constexpr uint64_t kMaxYamlBytes = 1 << 20;

}  // namespace

std::string place_of(const std::string& file, const YAML::Node& node) {
  return absl::StrCat(file, ":", node.Mark().line + 1, ":", node.Mark().column + 1);
}

absl::StatusOr<YAML::Node> load_yaml_map(const std::string& path, const std::string& expected) {
  absl::StatusOr<std::string> text = read_file(path, kMaxYamlBytes);
  if (!text.ok()) return text.status();
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(*text);
    if (documents.size() > 1) {
      return absl::InvalidArgumentError(path + ": holds several YAML documents");
    }
    YAML::Node root = documents.empty() ? YAML::Node() : documents[0];
    if (!root.IsMap()) return absl::InvalidArgumentError(path + ":1:1: " + expected);
    return root;
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", error.mark.line + 1, ":", error.mark.column + 1, ": ", error.msg));
  }
}

absl::StatusOr<YAML::Node> parse_yaml(const std::string& text) {
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(error.msg);
  }
}

void for_each_item(const YAML::Node& map, const std::string& file, std::vector<std::string>* errors,
                   const std::function<void(const std::string& key, const YAML::Node& value,
                                            const std::string& place)>& item,
                   const std::string& prefix) {
  std::set<std::string> seen;
  for (const auto& entry : map) {
    const std::string place = place_of(file, entry.first);
    if (!entry.first.IsScalar()) {
      errors->push_back(place + ": a key must be a word");
      continue;
    }
    const std::string& key = entry.first.Scalar();
    if (!seen.insert(key).second) {
      errors->push_back(absl::StrCat(place, ": key '", prefix, key, "' stands twice"));
      continue;
    }
    item(key, entry.second, place);
  }
}

std::string found_in(const YAML::Node& node) {
  return node.IsScalar() ? absl::StrCat("'", node.Scalar(), "'")
         : node.IsMap()  ? "a map"
         : node.IsNull() ? "empty"
                         : "a list";
}

}  // namespace emo
