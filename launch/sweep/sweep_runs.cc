#include "launch/sweep/sweep_runs.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/files/file_system.h"
#include "eval/experts/retention.h"
#include "train/checkpoint/checkpoint.h"
#include "train/run_data.h"

namespace emo {
namespace {

// Lines that are said of arms, in the order of their first arm.
class LinesOfArms {
 public:
  void add(const std::string& line, const std::string& arm) {
    auto found = std::find_if(lines_.begin(), lines_.end(),
                              [&](const auto& entry) { return entry.first == line; });
    if (found == lines_.end()) found = lines_.insert(lines_.end(), {line, {}});
    std::vector<std::string>& arms = found->second;
    if (std::find(arms.begin(), arms.end(), arm) == arms.end()) arms.push_back(arm);
  }
  bool empty() const { return lines_.empty(); }
  // What is said of all of them needs no names.
  std::string text(size_t arms) const {
    std::vector<std::string> all;
    for (const auto& [line, names] : lines_) {
      all.push_back(names.size() == arms
                        ? line
                        : absl::StrCat(line, names.size() > 1 ? " (arms " : " (arm ",
                                       absl::StrJoin(names, ", "), ")"));
    }
    return absl::StrJoin(all, "\n  ");
  }

 private:
  std::vector<std::pair<std::string, std::vector<std::string>>> lines_;
};

// A config's errors, one a line, without the line that counts them.
std::vector<std::string> lines_of(const absl::Status& status) {
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(std::string(status.message()), '\n')) {
    const bool counts = absl::StartsWith(line, "the config has ");
    while (absl::StartsWith(line, " ")) line.remove_prefix(1);
    if (!counts && !line.empty()) lines.emplace_back(line);
  }
  return lines;
}

absl::StatusOr<SweepRun> make_run(const SweepConfig& sweep, const SweepArm& arm, uint64_t seed) {
  const std::vector<Override> overrides = run_overrides(sweep, arm, seed);
  absl::StatusOr<RunConfig> config = read_overridden_config(sweep.base, overrides);
  if (!config.ok()) return config.status();
  SweepRun run;
  run.arm = &arm;
  run.seed = seed;
  run.name = absl::StrCat(arm.name, " seed ", seed);
  run.folder = run_folder(sweep, arm, seed);
  run.config = *std::move(config);
  for (const Override& change : overrides) {
    run.overrides.push_back(absl::StrCat(change.key, "=", change.value));
  }
  run.ranks = sweep.ranks > 0 ? sweep.ranks : run.config.parallel.ep;
  run.cut = arm.cut && !sweep.measure.keep.empty() && run.config.model.moe_layers() > 0;
  return run;
}

absl::Status check_ranks(const SweepRun& run) {
  const int64_t ep = run.config.parallel.ep;
  if (run.ranks % ep == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("ranks is ", run.ranks, ", which is no multiple of parallel.ep = ", ep));
}

absl::Status check_run_cuts(const SweepConfig& sweep, const SweepRun& run) {
  if (!run.cut) return absl::OkStatus();
  RetentionOptions options;
  options.keeps = sweep.measure.keep;
  absl::Status status = check_cuts(run.config.model, options);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("measure.keep: ", status.message()));
}

// What stands in the folder must be a part of this very run.
absl::Status check_standing(const SweepRun& run) {
  absl::StatusOr<std::string> latest = latest_checkpoint(run.folder);
  if (!latest.ok() || latest->empty()) return latest.status();
  absl::StatusOr<TrainingPosition> position = read_position(*latest);
  if (!position.ok()) return position.status();
  const std::vector<std::string> differences =
      differences_that_matter(position->config, to_pairs(run.config));
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(*latest, ": was made otherwise: ", absl::StrJoin(differences, "; "),
                   ". Name another folder (--folder), or remove this one"));
}

absl::StatusOr<DatasetInfo> measured_on(const std::string& folder, const char* key,
                                        const std::vector<SweepRun>& runs) {
  absl::StatusOr<DatasetInfo> info = read_dataset_info(folder);
  if (!info.ok()) {
    return absl::Status(info.status().code(), absl::StrCat(key, ": ", info.status().message()));
  }
  for (const SweepRun& run : runs) {
    if (info->vocab_size <= run.config.model.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat(key, ": ", folder, " has ", info->vocab_size,
                                                   " kinds of token, the model of ", run.name,
                                                   " has ", run.config.model.vocab_size));
  }
  return info;
}

absl::Status check_labels(const SweepData& data) {
  const auto& calibrated = data.validation.sources;
  for (const std::string& label : data.test.sources) {
    if (std::find(calibrated.begin(), calibrated.end(), label) != calibrated.end()) {
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError("measure: test and validation have no label in common");
}

}  // namespace

absl::StatusOr<std::vector<SweepRun>> runs_of(const SweepConfig& sweep) {
  std::vector<SweepRun> runs;
  LinesOfArms wrong;
  for (const uint64_t seed : sweep.seeds) {
    for (const SweepArm& arm : sweep.arms) {
      if (std::find(arm.seeds.begin(), arm.seeds.end(), seed) == arm.seeds.end()) continue;
      absl::StatusOr<SweepRun> run = make_run(sweep, arm, seed);
      if (absl::IsNotFound(run.status())) return run.status();
      absl::Status status = run.status();
      if (status.ok()) status = check_ranks(*run);
      if (status.ok()) status = check_run_cuts(sweep, *run);
      for (const std::string& line : lines_of(status)) wrong.add(line, arm.name);
      if (run.ok()) runs.push_back(*std::move(run));
    }
  }
  if (wrong.empty()) return runs;
  return absl::InvalidArgumentError(
      absl::StrCat(sweep.path, ": configs of arms are wrong:\n  ", wrong.text(sweep.arms.size())));
}

absl::StatusOr<SweepData> check_runs(const SweepConfig& sweep, const std::vector<SweepRun>& runs) {
  std::vector<std::string> wrong;
  bool only_missing = true;
  const auto note = [&](const absl::Status& status) {
    if (status.ok()) return;
    only_missing = only_missing && absl::IsNotFound(status);
    const std::string line(status.message());
    if (std::find(wrong.begin(), wrong.end(), line) == wrong.end()) wrong.push_back(line);
  };
  SweepData data;
  const SweepConfig::Measure& measure = sweep.measure;
  absl::StatusOr<DatasetInfo> test = measured_on(measure.test, "measure.test", runs);
  note(test.status());
  if (test.ok()) data.test = *std::move(test);
  if (!measure.validation.empty()) {
    absl::StatusOr<DatasetInfo> validation =
        measured_on(measure.validation, "measure.validation", runs);
    note(validation.status());
    if (validation.ok()) data.validation = *std::move(validation);
  }
  if (!measure.tasks.empty() && !path_exists(measure.tasks)) {
    note(absl::NotFoundError("measure.tasks: " + measure.tasks + ": no such file or folder"));
  }
  if (wrong.empty() && !measure.keep.empty()) note(check_labels(data));
  std::set<const SweepArm*> opened;  // seeds of an arm share their data
  for (const SweepRun& run : runs) {
    if (opened.insert(run.arm).second) note(open_run_data(run.config).status());
    note(check_standing(run));
  }
  if (wrong.empty()) return data;
  const std::string text = absl::StrJoin(wrong, "\n");
  if (only_missing) return absl::NotFoundError(text);
  return absl::InvalidArgumentError(text);
}

absl::StatusOr<bool> is_trained(const SweepRun& run) {
  absl::StatusOr<std::string> latest = latest_checkpoint(run.folder);
  if (!latest.ok()) return latest.status();
  if (latest->empty()) return false;
  absl::StatusOr<TrainingPosition> position = read_position(*latest);
  if (!position.ok()) return position.status();
  return position->step >= run.config.total_steps();
}

}  // namespace emo
