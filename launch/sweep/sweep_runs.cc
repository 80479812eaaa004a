#include "launch/sweep/sweep_runs.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/documents/task_file.h"
#include "data/shards/token_dataset.h"
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

// `ranks` says how many processes a run has; each that of its config.
absl::Status check_ranks(const SweepRun& run) {
  const int64_t ep = run.config.parallel.ep;
  if (run.ranks % ep == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("ranks is ", run.ranks, ", which is no multiple of parallel.ep = ", ep));
}

absl::Status check_run_cuts(const SweepConfig& sweep, const SweepRun& run) {
  if (!run.cut) return absl::OkStatus();
  absl::Status status = check_cuts(run.config.model, retention_options(sweep.measure));
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("measure.keep: ", status.message()));
}

// The newest checkpoint's position; nothing where there is none, or another process removes it now.
absl::StatusOr<std::optional<TrainingPosition>> newest_position(const SweepRun& run,
                                                                std::string* folder) {
  absl::StatusOr<std::string> latest = latest_checkpoint(run.folder);
  if (!latest.ok()) return latest.status();
  *folder = *latest;
  if (latest->empty()) return std::nullopt;
  absl::StatusOr<TrainingPosition> position = read_position(*latest);
  if (absl::IsNotFound(position.status())) return std::nullopt;
  if (!position.ok()) return position.status();
  return *std::move(position);
}

// What of a run's config training looks at only when it begins.
std::vector<std::string> beginnings(const TrainingPosition& then, const RunConfig& now) {
  const std::map<std::string, std::string> before(then.config.begin(), then.config.end());
  std::vector<std::string> lines;
  for (const auto& [key, value] : to_pairs(now)) {
    const auto found = before.find(key);
    if ((key == "run.start_from" || key == "run.take") && found != before.end() &&
        found->second != value) {
      lines.push_back(absl::StrCat(key, ": was ", found->second, ", is ", value));
    }
  }
  return lines;
}

// What stands in the folder must be a part of this very run.
absl::Status check_standing(const SweepRun& run, const ChunkSource& source) {
  std::string folder;
  absl::StatusOr<std::optional<TrainingPosition>> found = newest_position(run, &folder);
  if (!found.ok() || !*found) return found.status();
  const TrainingPosition& position = **found;
  std::vector<std::string> differences =
      differences_that_matter(position.config, to_pairs(run.config));
  for (const std::string& line : beginnings(position, run.config)) differences.push_back(line);
  if (!source.matches(position.data_fingerprint)) {
    differences.emplace_back("its data's contents were others");
  }
  const int64_t steps = run.config.total_steps();
  if (position.step > steps) {
    differences.push_back(
        absl::StrCat("it has ", position.step, " steps, and ", steps, " are asked"));
  }
  if (position.step < steps && !has_optimizer(folder)) {
    differences.push_back(absl::StrCat("it ended after ", position.step,
                                       " steps with the model alone, and ", steps, " are asked"));
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(folder, ": was made otherwise: ", absl::StrJoin(differences, "; "),
                   ". Name another folder (--folder), or remove ", run.folder));
}

// Prepared documents, which all runs' models can read.
absl::StatusOr<TokenDataset> measured_on(const std::string& folder, const char* key,
                                         const std::vector<SweepRun>& runs) {
  absl::StatusOr<TokenDataset> data = TokenDataset::open(folder);
  if (!data.ok()) {
    return absl::Status(data.status().code(), absl::StrCat(key, ": ", data.status().message()));
  }
  for (const SweepRun& run : runs) {
    const int64_t vocabulary = run.config.model.vocab_size;
    if (data->info().vocab_size > vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat(key, ": ", folder, " has ", data->info().vocab_size,
                       " kinds of token, the model of ", run.name, " has ", vocabulary));
    }
    absl::StatusOr<DataTokenizer> tokenizer = tokenizer_of(run.config);
    const bool known = tokenizer.ok() && !tokenizer->file.empty();
    if (known && !same_tokenizer(tokenizer->identity, data->info().tokenizer)) {
      return absl::InvalidArgumentError(absl::StrCat(
          key, ": ", folder, ": prepared with another tokenizer than the data of ", run.name));
    }
  }
  return data;
}

std::map<std::string, int64_t> documents_by_label(const TokenDataset& data) {
  std::map<std::string, int64_t> documents;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    for (const StoredDocument& document : data.documents(shard)) {
      ++documents[data.info().sources[document.source]];
    }
  }
  return documents;
}

// What ranking needs of the labels that both have.
absl::Status check_labels(const SweepConfig::Measure& measure, const TokenDataset& test,
                          const TokenDataset& validation) {
  const std::map<std::string, int64_t> calibration = documents_by_label(validation);
  std::vector<std::string> wrong;
  size_t common = 0;
  for (const std::string& label : test.info().sources) {
    const auto found = calibration.find(label);
    if (found == calibration.end()) continue;
    ++common;
    for (const int64_t documents : measure.documents) {
      if (documents <= found->second) continue;
      wrong.push_back(absl::StrCat("measure.documents: ", documents, ": ", validation.folder(),
                                   " has ", found->second, " with the label ", label));
    }
  }
  if (common == 0) wrong.emplace_back("measure: test and validation have no label in common");
  if (common == 1 && measure.other_domain) {
    wrong.emplace_back("measure.other_domain: test and validation have one label in common");
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
}

// Everything that is wrong, one a line.
class Problems {
 public:
  // Whether it is no problem.
  bool note(const absl::Status& status) {
    if (status.ok()) return true;
    only_missing_ = only_missing_ && absl::IsNotFound(status);
    const std::string line(status.message());
    if (std::find(lines_.begin(), lines_.end(), line) == lines_.end()) lines_.push_back(line);
    return false;
  }
  absl::Status status() const {
    const std::string text = absl::StrJoin(lines_, "\n");
    if (lines_.empty()) return absl::OkStatus();
    return only_missing_ ? absl::NotFoundError(text) : absl::InvalidArgumentError(text);
  }

 private:
  std::vector<std::string> lines_;
  bool only_missing_ = true;
};

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

RetentionOptions retention_options(const SweepConfig::Measure& measure) {
  RetentionOptions options;
  options.keeps = measure.keep;
  options.methods = measure.methods;
  options.documents = measure.documents;
  options.test_documents = measure.test_documents;
  options.other_domain = measure.other_domain;
  return options;
}

absl::StatusOr<SweepData> check_runs(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                     const std::vector<SweepRun>& standing) {
  Problems problems;
  SweepData data;
  const SweepConfig::Measure& measure = sweep.measure;
  absl::StatusOr<TokenDataset> test = measured_on(measure.test, "measure.test", runs);
  if (problems.note(test.status())) data.test = test->info();
  if (!measure.keep.empty()) {
    absl::StatusOr<TokenDataset> validation =
        measured_on(measure.validation, "measure.validation", runs);
    if (problems.note(validation.status()) && test.ok()) {
      data.validation = validation->info();
      problems.note(check_labels(measure, *test, *validation));
    }
  }
  if (!measure.tasks.empty()) problems.note(read_tasks({measure.tasks}).status());
  std::map<const SweepArm*, RunData> opened;  // seeds of an arm share their data
  for (const SweepRun& run : runs) {
    if (opened.contains(run.arm)) continue;
    absl::StatusOr<RunData> own = open_run_data(run.config);
    if (problems.note(own.status())) opened[run.arm] = *std::move(own);
  }
  for (const SweepRun& run : standing) {
    const auto found = opened.find(run.arm);
    if (found != opened.end()) problems.note(check_standing(run, *found->second.source));
  }
  const absl::Status status = problems.status();
  if (!status.ok()) return status;
  return data;
}

absl::StatusOr<bool> is_trained(const SweepRun& run) {
  std::string folder;
  absl::StatusOr<std::optional<TrainingPosition>> position = newest_position(run, &folder);
  if (!position.ok()) return position.status();
  return *position && (*position)->step == run.config.total_steps();
}

}  // namespace emo
