#include "train/config/sweep_reader.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "data/files/json.h"
#include "data/program/closest_name.h"

namespace emo {
namespace {

constexpr char kFolder[] = "{folder}";
constexpr int64_t kMostCounted = 1'000'000;

// What the sweep says of each run itself.
const std::set<std::string>& sweeps_own_keys() {
  static const std::set<std::string> keys = {"run.folder", "run.seed"};
  return keys;
}

}  // namespace

std::string quoted(const std::string& text) { return OrderedJson(text).dump(); }

std::string one_line(const YAML::Node& node) {
  if (node.IsScalar()) return node.Tag() == "!" ? quoted(node.Scalar()) : node.Scalar();
  YAML::Emitter emitter;
  emitter.SetMapFormat(YAML::Flow);
  emitter.SetSeqFormat(YAML::Flow);
  emitter << node;
  return absl::StrReplaceAll(emitter.c_str(), {{"\n", " "}});
}

YAML::Node SweepReader::with_folder(const YAML::Node& node) const {
  if (node.IsScalar() && absl::StrContains(node.Scalar(), kFolder)) {
    YAML::Node text(absl::StrReplaceAll(node.Scalar(), {{kFolder, folder_}}));
    text.SetTag("!");  // text, whatever the folder's name looks like
    return text;
  }
  if (node.IsSequence()) {
    YAML::Node list(YAML::NodeType::Sequence);
    for (const YAML::Node& item : node) list.push_back(with_folder(item));
    return list;
  }
  return node;
}

void SweepReader::error(const std::string& place, const std::string& what) {
  errors_.push_back(absl::StrCat(place, ": ", what));
}

void SweepReader::wrong(const std::string& key, const SweepValue& value,
                        const std::string& expected) {
  error(value.place, absl::StrCat(key, " is ", found_in(value.node), ", must be ", expected));
}

void SweepReader::read_field(const std::string& key, const SweepValue& value,
                             const std::string& prefix, const Fields& fields) {
  std::vector<std::string> known;
  for (const auto& [name, read] : fields) {
    if (name == key) return read(value.node, value.place);
    known.push_back(name);
  }
  error(value.place, absl::StrCat("unknown key '", prefix, key, "'", did_you_mean(key, known)));
}

void SweepReader::read_map(const YAML::Node& map, const std::string& place, const std::string& what,
                           const Fields& fields) {
  if (!map.IsMap()) return wrong(what, {map, place}, "a map");
  for_each_item(map, file_, &errors_,
                [&](const std::string& key, const YAML::Node& value, const std::string& at) {
                  read_field(key, {value, at}, what.empty() ? "" : what + ".", fields);
                });
}

void SweepReader::text(const std::string& key, const SweepValue& value, std::string* to) {
  if (!value.node.IsScalar()) return wrong(key, value, "text");
  *to = with_folder(value.node).Scalar();
}

void SweepReader::flag(const std::string& key, const SweepValue& value, bool* to) {
  const std::string text = value.node.IsScalar() ? value.node.Scalar() : "";
  if (text != "true" && text != "false") return wrong(key, value, "true or false");
  *to = text == "true";
}

void SweepReader::count(const std::string& key, const SweepValue& value, int64_t* to) {
  int64_t number = 0;
  if (!value.node.IsScalar() || !absl::SimpleAtoi(value.node.Scalar(), &number) || number < 0 ||
      number > kMostCounted) {
    return wrong(key, value, absl::StrCat("a number from 0 to ", kMostCounted));
  }
  *to = number;
}

void SweepReader::texts(const std::string& key, const SweepValue& value,
                        std::vector<std::string>* to) {
  to->clear();
  if (value.node.IsScalar()) to->push_back(value.node.Scalar());
  if (!value.node.IsSequence()) {
    if (to->empty()) wrong(key, value, "a list");
    return;
  }
  for (const YAML::Node& item : value.node) {
    if (!item.IsScalar()) return wrong(key, value, "a list of words or numbers");
    to->push_back(item.Scalar());
  }
}

void SweepReader::counts(const std::string& key, const SweepValue& value, int64_t least,
                         std::vector<int64_t>* to) {
  std::vector<std::string> items;
  texts(key, value, &items);
  to->clear();
  for (const std::string& item : items) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(item, &number) || number < least) {
      return wrong(key, value, absl::StrCat("a list of numbers from ", least));
    }
    to->push_back(number);
  }
}

void SweepReader::seeds(const std::string& key, const SweepValue& value,
                        std::vector<uint64_t>* to) {
  std::vector<int64_t> numbers;
  const size_t before = errors_.size();
  counts(key, value, 0, &numbers);
  if (errors_.size() > before) return;
  to->assign(numbers.begin(), numbers.end());
  if (to->empty()) error(value.place, key + " is empty: a run needs a seed");
  if (std::set<uint64_t>(to->begin(), to->end()).size() < to->size()) {
    error(value.place, key + ": a seed stands twice");
  }
}

void SweepReader::override_of(const std::string& key, const SweepValue& value,
                              std::vector<Override>* to) {
  if (sweeps_own_keys().contains(key)) {
    return error(value.place, absl::StrCat(key, " is set by the sweep for each run",
                                           key == "run.seed" ? "; `seeds` lists them" : ""));
  }
  const auto same = [&key](const Override& other) { return other.key == key; };
  if (std::any_of(to->begin(), to->end(), same)) {
    return error(value.place, absl::StrCat("key '", key, "' stands twice"));
  }
  to->push_back({key, one_line(with_folder(value.node)), value.place});
}

void SweepReader::section_or_key(const std::string& key, const SweepValue& value,
                                 const std::string& also, std::vector<Override>* to) {
  if (absl::StrContains(key, '.')) return override_of(key, value, to);
  if (!value.node.IsMap()) {
    return error(value.place, absl::StrCat("'", key, "': expected section.key: value", also));
  }
  for_each_item(value.node, file_, &errors_,
                [&](const std::string& name, const YAML::Node& node, const std::string& place) {
                  override_of(absl::StrCat(key, ".", name), {node, place}, to);
                });
}

void SweepReader::overrides(const std::string& what, const SweepValue& value,
                            std::vector<Override>* to) {
  if (value.node.IsNull()) return;
  if (!value.node.IsMap()) return wrong(what, value, "a map of section.key: value");
  for_each_item(value.node, file_, &errors_,
                [&](const std::string& key, const YAML::Node& node, const std::string& place) {
                  section_or_key(key, {node, place}, "", to);
                });
}

}  // namespace emo
