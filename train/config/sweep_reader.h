// Values of a sweep's file, and everything that is wrong with them.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "train/config/sweep_config.h"
#include "train/config/yaml_file.h"

namespace emo {

// A value of YAML and where it stands.
struct SweepValue {
  YAML::Node node;
  std::string place;
};

class SweepReader {
 public:
  // `folder` is what {folder} stands for.
  SweepReader(std::string file, std::string folder)
      : file_(std::move(file)), folder_(std::move(folder)) {}

  std::vector<std::string>& errors() { return errors_; }
  void error(const std::string& place, const std::string& what);

  // Items of a map, each given to the function of its key; others are unknown keys.
  using Fields = std::vector<std::pair<
      std::string, std::function<void(const YAML::Node& value, const std::string& place)>>>;
  void read_map(const YAML::Node& map, const std::string& place, const std::string& what,
                const Fields& fields);
  void read_field(const std::string& key, const SweepValue& value, const std::string& prefix,
                  const Fields& fields);

  void text(const std::string& key, const SweepValue& value, std::string* to);
  void flag(const std::string& key, const SweepValue& value, bool* to);
  // Numbers from `least` on, at most a million.
  void count(const std::string& key, const SweepValue& value, int64_t* to);
  void counts(const std::string& key, const SweepValue& value, int64_t least,
              std::vector<int64_t>* to);
  void texts(const std::string& key, const SweepValue& value, std::vector<std::string>* to);
  void seeds(const std::string& key, const SweepValue& value, std::vector<uint64_t>* to);
  // {section.key: value} or {section: {key: value}}; nothing: an arm that changes nothing.
  void overrides(const std::string& what, const SweepValue& value, std::vector<Override>* to);
  // One item of such a map; `also` names what else could stand there.
  void section_or_key(const std::string& key, const SweepValue& value, const std::string& also,
                      std::vector<Override>* to);
  // "section.key" and its value.
  void override_of(const std::string& key, const SweepValue& value, std::vector<Override>* to);

 private:
  // The same with {folder} replaced, in texts and lists of them.
  YAML::Node with_folder(const YAML::Node& node) const;
  void wrong(const std::string& key, const SweepValue& value, const std::string& expected);
  std::string file_, folder_;
  std::vector<std::string> errors_;
};

// YAML of a node on one line.
std::string one_line(const YAML::Node& node);

// Text as YAML that reads back to it. REQUIRES: it is valid UTF-8.
std::string quoted(const std::string& text);

}  // namespace emo
