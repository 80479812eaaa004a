// YAML as configs and sweeps are written in: a map, whose keys stand once, with places for errors.
// One of the few files that see yaml-cpp.
#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace emo {

// "file:line:column", counted from 1.
std::string place_of(const std::string& file, const YAML::Node& node);

// A file's one document. InvalidArgument, with its place, for bad syntax, several documents, or
// where it is no map: then it says `expected`, as in "a config is a map of sections". NotFound
// where there is no file, DataLoss above 1 MiB.
absl::StatusOr<YAML::Node> load_yaml_map(const std::string& path, const std::string& expected);

// Text as YAML; InvalidArgument that says what is wrong with it.
absl::StatusOr<YAML::Node> parse_yaml(const std::string& text);

// Calls `item` for everything in a map but what is wrong with its key, which it adds to `errors`:
// no word, or there already.
// `prefix` goes before keys in errors.
void for_each_item(const YAML::Node& map, const std::string& file, std::vector<std::string>* errors,
                   const std::function<void(const std::string& key, const YAML::Node& value,
                                            const std::string& place)>& item,
                   const std::string& prefix = "");

// What a node is, for "x is ..., must be ...": "'text'", "a map", "a list" or "empty".
std::string found_in(const YAML::Node& node);

}  // namespace emo
