#include "train/config/sweep_config.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "data/files/file_system.h"
#include "data/program/closest_name.h"
#include "data/tokenizer/utf8.h"
#include "train/config/sweep_reader.h"
#include "train/subset/expert_subset.h"

namespace emo {
namespace {

constexpr size_t kMostRuns = 10'000;

std::string stem_of(const std::string& path) {
  const std::string name = file_name(path);
  return name.substr(0, name.rfind('.'));
}

// The folder that a sweep writes into, before anything else is read: {folder} stands for it.
std::string folder_of(const std::string& path, const YAML::Node& root,
                      const SweepChanges& changes) {
  if (!changes.folder.empty()) return changes.folder;
  const YAML::Node folder = root["folder"];
  return folder.IsDefined() && folder.IsScalar() ? folder.Scalar() : "runs/" + stem_of(path);
}

bool can_name_a_folder(const std::string& name) {
  static const std::set<std::string> taken = {"sweep.json", "sweep.csv", "sweep.html"};
  return !name.empty() && name.size() <= 100 && name[0] != '.' && !taken.contains(name) &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || absl::StrContains("._-+", c);
         });
}

// A value in the name of a grid's arm: {min: 4, max: 28} -> min-4-max-28.
std::string in_a_name(const std::string& value) {
  std::string name;
  for (const char c : value) {
    const bool kept =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || absl::StrContains("._+", c);
    if (kept) {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  if (!name.empty() && name.back() == '-') name.pop_back();
  return name;
}

class SweepFile {
 public:
  SweepFile(const std::string& path, const SweepChanges& changes, const YAML::Node& root)
      : changes_(changes), root_(root), reader_(path, folder_of(path, root, changes)) {
    sweep_.path = path;
    sweep_.folder = folder_of(path, root, changes);
  }

  absl::StatusOr<SweepConfig> read() {
    const bool has_arms = root_["arms"].IsDefined();
    const bool has_grid = root_["grid"].IsDefined();
    sweep_.seeds = {1};
    reader_.read_map(root_, sweep_.path, "", fields());
    seeds_of_file_ = sweep_.seeds;
    for (const std::string& change : changes_.changes) apply(change);
    if (sweep_.folder.empty()) reader_.error(sweep_.path, "folder is empty");
    const std::string& path = sweep_.path;
    if (has_arms == has_grid) {
      reader_.error(path, has_arms ? "arms and grid exclude each other"
                                   : "arms is missing, or grid: what differs between the runs");
    }
    if (sweep_.base.empty()) reader_.error(path, "base is missing: the config that all arms share");
    check_measure();
    check_arms();
    const std::vector<std::string>& errors = reader_.errors();
    if (errors.empty()) return std::move(sweep_);
    return absl::InvalidArgumentError(absl::StrCat(
        "the sweep has ", errors.size(), errors.size() == 1 ? " error:\n  " : " errors:\n  ",
        absl::StrJoin(errors, "\n  ")));
  }

 private:
  SweepReader::Fields fields() {
    using Node = const YAML::Node&;
    using Place = const std::string&;
    return {{"base",
             [this](Node n, Place p) {
               reader_.text("base", {n, p}, &sweep_.base);
               const bool relative = !sweep_.base.empty() && sweep_.base[0] != '/';
               if (relative) sweep_.base = parent_folder(sweep_.path) + "/" + sweep_.base;
             }},
            {"folder",
             [this](Node n, Place p) {
               std::string unused;
               reader_.text("folder", {n, p}, &unused);
             }},
            {"set",
             [this](Node n, Place p) {
               reader_.overrides("set", {n, p}, &sweep_.set);
             }},
            {"arms",
             [this](Node n, Place p) {
               read_arms({n, p});
             }},
            {"grid",
             [this](Node n, Place p) {
               read_grid({n, p});
             }},
            {"seeds",
             [this](Node n, Place p) {
               reader_.seeds("seeds", {n, p}, &sweep_.seeds);
             }},
            {"baseline",
             [this](Node n, Place p) {
               baseline_place_ = p;
               reader_.text("baseline", {n, p}, &sweep_.baseline);
             }},
            {"ranks",
             [this](Node n, Place p) {
               reader_.count("ranks", {n, p}, &sweep_.ranks);
             }},
            {"measure",
             [this](Node n, Place p) { reader_.read_map(n, p, "measure", measure_fields()); }}};
  }

  SweepReader::Fields measure_fields() {
    using Node = const YAML::Node&;
    using Place = const std::string&;
    SweepConfig::Measure& m = sweep_.measure;
    return {{"test",
             [&](Node n, Place p) {
               reader_.text("measure.test", {n, p}, &m.test);
             }},
            {"validation",
             [&](Node n, Place p) {
               reader_.text("measure.validation", {n, p}, &m.validation);
             }},
            {"tasks",
             [&](Node n, Place p) {
               reader_.text("measure.tasks", {n, p}, &m.tasks);
             }},
            {"keep",
             [&](Node n, Place p) {
               read_keep({n, p});
             }},
            {"methods",
             [&](Node n, Place p) {
               read_methods({n, p});
             }},
            {"documents",
             [&](Node n, Place p) {
               reader_.counts("measure.documents", {n, p}, 1, &m.documents);
             }},
            {"test_documents",
             [&](Node n, Place p) {
               reader_.count("measure.test_documents", {n, p}, &m.test_documents);
             }},
            {"copies_on",
             [&](Node n, Place p) {
               reader_.count("measure.copies_on", {n, p}, &m.copies_on);
             }},
            {"other_domain", [&](Node n, Place p) {
               reader_.flag("measure.other_domain", {n, p}, &m.other_domain);
             }}};
  }

  void read_keep(const SweepValue& value) {
    std::vector<std::string> texts;
    reader_.texts("measure.keep", value, &texts);
    absl::StatusOr<std::vector<Keep>> keep = parse_keeps(texts);
    if (!keep.ok()) return reader_.error(value.place, std::string(keep.status().message()));
    sweep_.measure.keep = *std::move(keep);
  }

  void read_methods(const SweepValue& value) {
    reader_.texts("measure.methods", value, &sweep_.measure.methods);
    for (const std::string& method : sweep_.measure.methods) {
      const auto& known = ranking_methods();
      if (std::find(known.begin(), known.end(), method) != known.end()) continue;
      reader_.error(value.place,
                    absl::StrCat("measure.methods: '", method, "' must be one of ",
                                 absl::StrJoin(known, ", "), did_you_mean(method, known)));
    }
    if (sweep_.measure.methods.empty()) reader_.error(value.place, "measure.methods is empty");
  }

  // A map of names, or a list of such maps.
  void read_arms(const SweepValue& value) {
    const auto read_all = [this](const YAML::Node& map) {
      for_each_item(
          map, sweep_.path, &reader_.errors(),
          [this](const std::string& name, const YAML::Node& arm, const std::string& place) {
            read_arm(name, {arm, place});
          });
    };
    if (value.node.IsMap()) return read_all(value.node);
    if (!value.node.IsSequence()) {
      return reader_.error(value.place, "arms is " + found_in(value.node) +
                                            ", must be a map: name: {section.key: value}");
    }
    for (const YAML::Node& item : value.node) {
      if (item.IsMap()) {
        read_all(item);
      } else {
        reader_.error(place_of(sweep_.path, item), "an arm is name: {section.key: value}");
      }
    }
  }

  void read_arm(const std::string& name, const SweepValue& value) {
    SweepArm arm;
    arm.name = name;
    arm.place = value.place;
    if (!value.node.IsMap()) {
      reader_.overrides("arm " + name, value, &arm.overrides);
      sweep_.arms.push_back(std::move(arm));
      return;
    }
    const std::string of = "arm " + name + ": ";
    for_each_item(value.node, sweep_.path, &reader_.errors(),
                  [&](const std::string& key, const YAML::Node& node, const std::string& place) {
                    const SweepValue item{node, place};
                    if (key == "about") return reader_.text(of + key, item, &arm.about);
                    if (key == "seeds") return reader_.seeds(of + key, item, &arm.seeds);
                    if (key == "cut") return reader_.flag(of + key, item, &arm.cut);
                    reader_.section_or_key(key, item, ", or one of about, seeds, cut",
                                           &arm.overrides);
                  });
    sweep_.arms.push_back(std::move(arm));
  }

  // {section.key: [values]}: an arm for each choice of one of each.
  void read_grid(const SweepValue& value) {
    if (!value.node.IsMap() || value.node.size() == 0) {
      return reader_.error(value.place, "grid must be a map: section.key: [values]");
    }
    std::vector<SweepArm> arms(1);
    for_each_item(
        value.node, sweep_.path, &reader_.errors(),
        [&](const std::string& key, const YAML::Node& values, const std::string& place) {
          if (!absl::StrContains(key, '.') || !values.IsSequence() || values.size() == 0) {
            return reader_.error(place,
                                 absl::StrCat("grid: '", key, "': expected section.key: [values]"));
          }
          if (arms.size() * values.size() > kMostRuns) {
            return reader_.error(place, absl::StrCat("grid: more than ", kMostRuns, " arms"));
          }
          std::vector<SweepArm> product;
          for (const SweepArm& arm : arms) {
            for (const YAML::Node& node : values) {
              SweepArm next = arm;
              reader_.override_of(key, {node, place}, &next.overrides);
              absl::StrAppend(&next.name, next.name.empty() ? "" : "_",
                              key.substr(key.rfind('.') + 1), "-", in_a_name(one_line(node)));
              next.place = place;
              product.push_back(std::move(next));
            }
          }
          arms = std::move(product);
        });
    sweep_.arms = std::move(arms);
  }

  // What the command line says.
  void apply(const std::string& text) {
    absl::StatusOr<Override> change = parse_override(text);
    if (!change.ok()) {
      reader_.errors().emplace_back(change.status().message());
      return;
    }
    absl::StatusOr<YAML::Node> node = parse_yaml(change->value);
    if (!node.ok()) return reader_.error(change->place, std::string(node.status().message()));
    const SweepValue value{*node, change->place};
    if (absl::StartsWith(change->key, "measure.")) {
      return reader_.read_field(change->key.substr(8), value, "measure.", measure_fields());
    }
    if (absl::StrContains(change->key, '.')) {
      std::erase_if(sweep_.set, [&](const Override& o) { return o.key == change->key; });
      return reader_.override_of(change->key, value, &sweep_.set);
    }
    SweepReader::Fields few = fields();
    std::erase_if(few, [](const auto& field) {
      return field.first != "seeds" && field.first != "ranks" && field.first != "baseline";
    });
    reader_.read_field(change->key, value, "", few);
  }

  void check_measure() {
    const SweepConfig::Measure& m = sweep_.measure;
    if (m.test.empty()) {
      reader_.error(sweep_.path, "measure.test is missing: documents to evaluate, of emo prepare");
    }
    if (!m.keep.empty() && m.validation.empty()) {
      reader_.error(sweep_.path,
                    "measure.keep needs measure.validation: documents to rank experts by");
    }
  }

  // All of the sweep's, or some of the file's; of these what a command line that says fewer leaves.
  void choose_seeds(SweepArm* arm) {
    if (arm->seeds.empty()) {
      arm->seeds = sweep_.seeds;
      return;
    }
    const auto among = [](uint64_t seed, const std::vector<uint64_t>& all) {
      return std::find(all.begin(), all.end(), seed) != all.end();
    };
    std::vector<uint64_t> left;
    for (const uint64_t seed : arm->seeds) {
      if (!among(seed, seeds_of_file_)) {
        reader_.error(arm->place, absl::StrCat("arm ", arm->name, ": seed ", seed,
                                               " is none of the sweep's seeds"));
      } else if (among(seed, sweep_.seeds)) {
        left.push_back(seed);
      }
    }
    arm->seeds = std::move(left);
  }

  void check_arms() {
    std::set<std::string> names;
    for (SweepArm& arm : sweep_.arms) {
      if (!can_name_a_folder(arm.name)) {
        reader_.error(
            arm.place,
            absl::StrCat("arm '", arm.name,
                         "': a name has letters, digits, '.', '_', '-' and "
                         "'+', at most 100, no '.' in front, and is no file of the sweep's"));
      }
      if (!names.insert(arm.name).second) {
        reader_.error(arm.place, absl::StrCat("two arms are called ", arm.name));
      }
      choose_seeds(&arm);
    }
    if (sweep_.arms.empty()) {
      return reader_.error(sweep_.path, "there is no arm: what differs between the runs?");
    }
    if (sweep_.arms.size() * sweep_.seeds.size() > kMostRuns) {
      reader_.error(sweep_.path, absl::StrCat("more than ", kMostRuns, " runs"));
    }
    if (sweep_.baseline.empty()) sweep_.baseline = sweep_.arms.front().name;
    if (!names.contains(sweep_.baseline)) {
      reader_.error(baseline_place_,
                    absl::StrCat("baseline: no arm is called '", sweep_.baseline, "'",
                                 did_you_mean(sweep_.baseline, {names.begin(), names.end()}),
                                 "; there are ", absl::StrJoin(names, ", ")));
    }
  }

  const SweepChanges& changes_;
  const YAML::Node root_;
  SweepReader reader_;
  SweepConfig sweep_;
  std::vector<uint64_t> seeds_of_file_;
  std::string baseline_place_;
};

}  // namespace

const SweepArm* SweepConfig::find(const std::string& arm) const {
  const auto found =
      std::find_if(arms.begin(), arms.end(), [&](const SweepArm& a) { return a.name == arm; });
  return found == arms.end() ? nullptr : &*found;
}

absl::StatusOr<SweepConfig> read_sweep_config(const std::string& path,
                                              const SweepChanges& changes) {
  absl::StatusOr<YAML::Node> root =
      load_yaml_map(path, "a sweep is a map: base, arms or grid, seeds, measure");
  if (!root.ok()) return root.status();
  const std::string folder = folder_of(path, *root, changes);
  if (first_invalid_utf8(folder) < folder.size()) {
    return absl::InvalidArgumentError(folder + ": a sweep's folder has a name in UTF-8");
  }
  return SweepFile(path, changes, *root).read();
}

std::vector<Override> run_overrides(const SweepConfig& sweep, const SweepArm& arm, uint64_t seed) {
  const std::string number = absl::StrCat(seed);
  const std::string seeds = absl::StrCat(sweep.path, ": seed ", number);
  // The model is what is measured; its moments would be two thirds of the disk.
  std::vector<Override> all = {{"checkpoint.last", "model", sweep.path},
                               {"checkpoint.keep", "1", sweep.path}};
  for (const char* key : {"run.seed", "model.init_seed", "data.seed"}) {
    all.push_back({key, number, seeds});
  }
  all.insert(all.end(), sweep.set.begin(), sweep.set.end());
  all.insert(all.end(), arm.overrides.begin(), arm.overrides.end());
  all.push_back({"run.folder", quoted(run_folder(sweep, arm, seed)), sweep.path});
  return all;
}

std::string run_folder(const SweepConfig& sweep, const SweepArm& arm, uint64_t seed) {
  return absl::StrCat(sweep.folder, "/", arm.name, "/seed-", seed);
}

}  // namespace emo
