// Mixes of ours (mix.h).
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "data/mix/mix.h"
#include "data/program/closest_name.h"
#include "data/program/first_lines.h"

namespace emo {
namespace {

constexpr size_t kMostErrors = 12;  // named in one message
// Paths and sources that are looked at: references to one list can repeat it without end.
constexpr int64_t kMostItems = 1 << 20;

const std::vector<std::string>& source_keys() {
  static const std::vector<std::string> keys = {"label", "paths", "weight", "tokens", "max_epochs"};
  return keys;
}

class MixReader {
 public:
  MixReader(const std::string& path, const MixNames& names, const FindFiles& find)
      : path_(path), names_(names), find_(find) {}

  absl::StatusOr<Mix> read(const YAML::Node& root) {
    if (!root.IsSequence() || root.size() == 0) {
      say(root, "expected a list of sources, each with label and paths");
    } else {
      for (const YAML::Node& item : root) {
        if (!has_room()) break;
        read_source(item);
      }
    }
    if (!has_room()) say(root, absl::StrCat("more than ", kMostItems, " sources and paths"));
    compare_weights();
    if (!wrong_.empty()) return absl::InvalidArgumentError(errors(wrong_));
    if (!missing_.empty()) return absl::NotFoundError(errors(missing_));
    if (weighted_.empty()) mix_.sources.clear();
    return std::move(mix_);
  }

 private:
  static std::string errors(const std::vector<std::string>& all) {
    return absl::StrJoin(first_lines(all, kMostErrors), "\n");
  }
  std::string place_of(const YAML::Node& node) const {
    return absl::StrCat(path_, ":", node.Mark().line + 1, ":", node.Mark().column + 1, ": ");
  }
  void say(const YAML::Node& node, const std::string& what) {
    wrong_.push_back(place_of(node) + what);
  }

  bool has_room() const { return items_ < kMostItems; }

  void read_source(const YAML::Node& item) {
    ++items_;
    if (!item.IsMap()) return say(item, "expected a source: label, paths, weight or tokens");
    std::set<std::string> seen;
    MixSource source;
    source.first = mix_.files.size();
    for (const auto& field : item) {
      const std::string key = field.first.IsScalar() ? field.first.Scalar() : "";
      if (!seen.insert(key).second) say(field.first, absl::StrCat("'", key, "' stands twice"));
      read_field(key, field.first, field.second, &source);
    }
    for (const char* needed : {"label", "paths"}) {
      if (!seen.contains(needed)) say(item, absl::StrCat("a source without '", needed, "'"));
    }
    if (seen.contains("weight") && seen.contains("tokens")) {
      say(item, "a source has a weight, or tokens, not both");
    }
    if (!source.label.empty() && !labels_.insert(source.label).second) {
      say(item, absl::StrCat("the label '", source.label, "' stands twice"));
    }
    (seen.contains("weight")   ? weighted_
     : seen.contains("tokens") ? counted_
                               : bare_)
        .push_back(place_of(item));
    if (seen.contains("max_epochs") && !seen.contains("weight") && !seen.contains("tokens")) {
      say(item, "max_epochs has no meaning without a weight or tokens");
    }
    source.end = mix_.files.size();
    for (size_t i = source.first; i < source.end; ++i) mix_.files[i].label = source.label;
    mix_.sources.push_back(std::move(source));
  }

  void read_field(const std::string& key, const YAML::Node& name, const YAML::Node& value,
                  MixSource* source) {
    if (key == "label") {
      source->label = value.IsScalar() ? value.Scalar() : "";
      if (source->label.empty()) say(value, "label is not text");
    } else if (key == "paths") {
      read_paths(value);
    } else if (key == "weight" || key == "tokens") {
      read_number(key, value, &source->weight);
    } else if (key == "max_epochs") {
      read_number(key, value, &source->max_epochs);
    } else {
      say(name, absl::StrCat("unknown key '", key, "'", did_you_mean(key, source_keys())));
    }
  }

  void read_number(const std::string& key, const YAML::Node& value, double* number) {
    const std::string text =
        value.IsScalar() ? absl::StrReplaceAll(value.Scalar(), {{"_", ""}}) : "";
    if (!absl::SimpleAtod(text, number) || !std::isfinite(*number) || *number <= 0) {
      say(value, absl::StrCat(key, " must be a number above 0"));
    }
  }

  void read_paths(const YAML::Node& value) {
    if (value.IsScalar()) return read_path(value);
    if (!value.IsSequence() || value.size() == 0) {
      return say(value, "paths must be a path, a pattern, or a list of them");
    }
    for (const YAML::Node& path : value) {
      if (!has_room()) return;
      read_path(path);
    }
  }

  void read_path(const YAML::Node& value) {
    ++items_;
    if (!value.IsScalar() || value.Scalar().empty()) return say(value, "a path must be text");
    absl::StatusOr<std::string> whole = complete_path(value.Scalar(), path_, names_);
    if (!whole.ok()) return say(value, std::string(whole.status().message()));
    absl::StatusOr<std::vector<MixFile>> files = find_(*whole);
    if (!files.ok()) {
      missing_.push_back(absl::StrCat(place_of(value), files.status().message()));
      return;
    }
    for (MixFile& file : *files) {
      if (!paths_.insert(file.path).second) {
        say(value, absl::StrCat(file.path, " is listed twice; a weight takes more of it"));
      }
      mix_.files.push_back(std::move(file));
    }
  }

  void compare_weights() {
    if (!counted_.empty() && !weighted_.empty()) {
      wrong_.push_back(counted_.front() + "tokens here, a weight elsewhere: one of them for all");
    }
    if (counted_.size() + weighted_.size() > 0 && !bare_.empty()) {
      wrong_.push_back(bare_.front() + "a source without weight or tokens, which others have");
    }
    weighted_.insert(weighted_.end(), counted_.begin(), counted_.end());
  }

  const std::string path_;
  const MixNames names_;
  const FindFiles& find_;
  int64_t items_ = 0;
  Mix mix_;
  std::set<std::string> labels_, paths_;
  std::vector<std::string> weighted_, counted_, bare_;  // places of sources
  std::vector<std::string> wrong_, missing_;
};

}  // namespace

absl::StatusOr<Mix> parse_mix_yaml(const std::string& text, const std::string& path,
                                   const MixNames& names, const FindFiles& find) {
  try {
    return MixReader(path, names, find).read(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", error.mark.line + 1, ":", error.mark.column + 1, ": ", error.msg));
  }
}

}  // namespace emo
