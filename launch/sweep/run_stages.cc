#include "launch/sweep/run_stages.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/program/thread_count.h"
#include "eval/experts/retention.h"
#include "launch/sweep/run_files.h"
#include "train/checkpoint/checkpoint.h"
#include "train/model_folder/manifest.h"
#include "train/step/device.h"

namespace emo {
namespace {

constexpr uint64_t kMostBytes = 1u << 30;

double tokens_of(const DatasetInfo& info) {
  double tokens = 0;
  for (const DatasetInfo::Shard& shard : info.shards) tokens += static_cast<double>(shard.tokens);
  return tokens;
}

// How the ranks of a command that only looks at a model compute.
std::vector<std::string> where(const SweepRun& run) {
  std::vector<std::string> options;
  if (run.config.parallel.ep > 1) options = {"--ep", absl::StrCat(run.config.parallel.ep)};
  if (run.config.parallel.device != DeviceKind::kCpu) {
    options.insert(options.end(), {"--device", device_name(run.config.parallel.device)});
  }
  return options;
}

void append(const std::vector<std::string>& more, std::vector<std::string>* all) {
  all->insert(all->end(), more.begin(), more.end());
}

Stage training(const SweepConfig& sweep, const SweepRun& run) {
  Stage stage{Stage::Kind::kTrain, "training", {"train", sweep.base}, "", "", ""};
  append(run.overrides, &stage.arguments);
  const RunConfig& config = run.config;
  stage.work =
      static_cast<double>(config.total_steps() * config.train.batch * config.data.sequence_length);
  return stage;
}

// `tasks`: what task files hold.
Stage evaluation(const SweepConfig& sweep, const SweepRun& run, const SweepData& data,
                 const std::string& tasks) {
  const SweepConfig::Measure& m = sweep.measure;
  Stage stage{Stage::Kind::kEval, "evaluating", {}, kEvalFile, kEvalFile, ""};
  stage.arguments = {"eval", run.folder, "--data", m.test, "--by-document", "--json"};
  if (!m.tasks.empty()) append({"--tasks", m.tasks}, &stage.arguments);
  append(where(run), &stage.arguments);
  stage.question = absl::StrCat(to_json(data.test), "\n", tasks);
  stage.columns = 1;
  stage.work = tokens_of(data.test) / 3;
  return stage;
}

Stage retention(const SweepConfig& sweep, const SweepRun& run, const SweepData& data) {
  const SweepConfig::Measure& m = sweep.measure;
  Stage stage{Stage::Kind::kRetention, "cutting experts", {}, "", kRetentionFile, ""};
  const std::string keep = absl::StrJoin(
      m.keep, ",", [](std::string* text, const Keep& k) { absl::StrAppend(text, to_text(k)); });
  stage.arguments = {"experts",
                     "retention",
                     "model=" + run.folder,
                     "--calibration",
                     m.validation,
                     "--data",
                     m.test,
                     "--keep",
                     keep,
                     "--method",
                     absl::StrJoin(m.methods, ","),
                     "--seed",
                     absl::StrCat(run.seed),
                     "--test-documents",
                     absl::StrCat(m.test_documents),
                     "--output",
                     run.folder + "/" + kRetentionFile,
                     "--overwrite"};
  if (!m.documents.empty()) {
    append({"--documents", absl::StrJoin(m.documents, ",")}, &stage.arguments);
  }
  if (m.other_domain) stage.arguments.emplace_back("--other-domain");
  append(where(run), &stage.arguments);
  const RetentionOptions options = retention_options(m);
  stage.question = absl::StrCat(keep, "\n", absl::StrJoin(m.methods, ","), "\n", run.seed, "\n",
                                m.test_documents, "\n", absl::StrJoin(m.documents, ","), "\n",
                                m.other_domain, "\n", to_json(data.test), to_json(data.validation));
  double share = 1;  // of the test documents, that are evaluated for each cut
  int64_t documents = 0;
  for (const DatasetInfo::Shard& shard : data.test.shards) documents += shard.documents;
  if (m.test_documents > 0 && documents > 0) {
    const auto most =
        static_cast<double>(m.test_documents) * static_cast<double>(data.test.sources.size());
    share = std::min(1.0, most / static_cast<double>(documents));
  }
  stage.columns = static_cast<int64_t>(2 + cuts_of(options).size());
  const auto passes = static_cast<double>(stage.columns);
  const auto rankings = static_cast<double>(m.methods.size() + m.documents.size());
  stage.work = (passes * share * tokens_of(data.test) + rankings * tokens_of(data.validation)) / 3;
  return stage;
}

Stage placement(const SweepConfig& sweep, const SweepRun& run, const SweepData& data) {
  Stage stage{Stage::Kind::kPlace, "counting copies", {}, kCopiesFile, kCopiesFile, ""};
  stage.arguments = {"experts",
                     "place",
                     run.folder,
                     "--data",
                     sweep.measure.test,
                     "--ranks",
                     absl::StrCat(sweep.measure.copies_on),
                     "--output",
                     run.folder + "/placement.json",
                     "--overwrite",
                     "--json"};
  append(where(run), &stage.arguments);
  stage.question = absl::StrCat(sweep.measure.copies_on, "\n", to_json(data.test));
  return stage;
}

// A SHA-256 of task files' contents; "" where there are none.
absl::StatusOr<std::string> digest_of_tasks(const std::string& tasks) {
  if (tasks.empty()) return std::string();
  absl::StatusOr<std::vector<std::string>> files = list_files(tasks);
  if (!files.ok()) return files.status();
  Sha256 digest;
  for (const std::string& file : *files) {
    absl::StatusOr<std::string> text = read_file(file, kMostBytes);
    if (!text.ok()) return text.status();
    digest.update(*text);
  }
  return digest.hex_digest();
}

// What decides a measurement: the model, and what is asked of it. "" without a model.
absl::StatusOr<std::string> identity_of(const SweepRun& run, const Stage& stage) {
  absl::StatusOr<std::string> latest = latest_checkpoint(run.folder);
  if (!latest.ok()) return latest.status();
  if (latest->empty()) return std::string();
  absl::StatusOr<std::string> manifest = read_file(*latest + "/" + kManifest, kMostBytes);
  if (!manifest.ok()) return manifest.status();
  return sha256_hex(absl::StrCat(*manifest, "\n", stage.result, "\n", stage.question));
}

OrderedJson read_object(const std::string& path) {
  absl::StatusOr<Json> json = read_json_file(path);
  return json.ok() && json->is_object() ? OrderedJson(*json) : OrderedJson::object();
}

absl::Status write_object(const std::string& path, const OrderedJson& json) {
  return write_file_durably(posix_file_system(), path, to_text(json));
}

absl::StatusOr<bool> is_measured(const SweepRun& run, const Stage& stage) {
  if (!path_exists(run.folder + "/" + stage.result)) return false;
  absl::StatusOr<std::string> identity = identity_of(run, stage);
  if (!identity.ok()) return identity.status();
  const OrderedJson measured = read_object(run.folder + "/" + kMeasuredFile);
  return !identity->empty() && measured.value(stage.result, "") == *identity;
}

}  // namespace

Installation find_installation() {
  char path[PATH_MAX] = {};
  Installation here;
  if (::readlink("/proc/self/exe", path, sizeof path - 1) < 0) return here;
  here.program = path;
  const std::string builds = parent_folder(parent_folder(here.program));  // of build/release/emo
  const std::string scripts = parent_folder(builds) + "/launch";
  if (path_exists(scripts + "/mpirun.sh")) here.scripts = scripts;
  const std::string python = builds + "/python/bin/python";
  if (path_exists(python)) here.python = python;
  return here;
}

absl::StatusOr<std::vector<Stage>> stages_of(const SweepConfig& sweep, const SweepRun& run,
                                             const SweepData& data) {
  absl::StatusOr<std::string> tasks = digest_of_tasks(sweep.measure.tasks);
  if (!tasks.ok()) return tasks.status();
  std::vector<Stage> stages = {training(sweep, run), evaluation(sweep, run, data, *tasks)};
  if (run.cut) stages.push_back(retention(sweep, run, data));
  const int64_t ranks = sweep.measure.copies_on;
  if (ranks > 1 && run.config.model.routed_experts() >= ranks) {
    stages.push_back(placement(sweep, run, data));
  }
  return stages;
}

absl::StatusOr<std::vector<Stage>> stages_left(const SweepConfig& sweep, const SweepRun& run,
                                               const SweepData& data) {
  absl::StatusOr<std::vector<Stage>> all = stages_of(sweep, run, data);
  if (!all.ok()) return all.status();
  absl::StatusOr<bool> trained = is_trained(run);
  if (!trained.ok()) return trained.status();
  if (!*trained) return all;
  std::vector<Stage> left;
  for (Stage& stage : *all) {
    if (stage.kind == Stage::Kind::kTrain) continue;
    absl::StatusOr<bool> measured = is_measured(run, stage);
    if (!measured.ok()) return measured.status();
    if (!*measured) left.push_back(std::move(stage));
  }
  return left;
}

int threads_of(const SweepRun& run, int jobs) {
  int asked = 0;
  const char* said = std::getenv("OMP_NUM_THREADS");
  if (said != nullptr && absl::SimpleAtoi(said, &asked) && asked > 0) return asked;
  cpu_set_t mine;
  const bool known = ::sched_getaffinity(0, sizeof mine, &mine) == 0;
  const int cores = known ? CPU_COUNT(&mine) : thread_count(0);
  return static_cast<int>(std::max<int64_t>(1, cores / (jobs * run.ranks)));
}

ChildCommand command_of(const Installation& here, const SweepRun& run, const Stage& stage,
                        int threads) {
  ChildCommand command;
  if (run.ranks > 1) {
    command.arguments = {here.scripts + "/mpirun.sh", absl::StrCat(run.ranks)};
  }
  command.arguments.push_back(here.program);
  append(stage.arguments, &command.arguments);
  command.environment = {{"OMP_NUM_THREADS", absl::StrCat(threads)}};
  command.log = log_of(run);
  if (!stage.output.empty()) command.output = run.folder + "/" + stage.output + ".new";
  return command;
}

absl::Status begin_stage(const SweepRun& run, const Stage& stage) {
  if (stage.result.empty()) return absl::OkStatus();
  absl::Status status = posix_file_system().remove_all(run.folder + "/" + stage.result);
  if (!status.ok() || stage.output.empty()) return status;
  return posix_file_system().remove_all(run.folder + "/" + stage.output + ".new");
}

absl::Status record_cost(const SweepRun& run, const Stage& stage, const ChildEnd& end) {
  const std::string path = run.folder + "/" + kCostFile;
  OrderedJson cost = read_object(path);
  const bool trains = stage.kind == Stage::Kind::kTrain;
  OrderedJson& spent = cost[trains ? "training" : stage.result];
  if (spent.is_null() || !trains) spent = {{"seconds", 0.0}, {"peak_memory_bytes", 0}};
  spent["seconds"] = spent["seconds"].get<double>() + end.seconds;
  spent["peak_memory_bytes"] = std::max(spent["peak_memory_bytes"].get<int64_t>(), end.peak_memory);
  return write_object(path, cost);
}

absl::Status finish_stage(const SweepRun& run, const Stage& stage) {
  if (stage.result.empty()) return absl::OkStatus();
  absl::Status status;
  if (!stage.output.empty()) {
    status = posix_file_system().rename(run.folder + "/" + stage.output + ".new",
                                        run.folder + "/" + stage.result);
  }
  if (!status.ok()) return status;
  absl::StatusOr<std::string> identity = identity_of(run, stage);
  if (!identity.ok()) return identity.status();
  OrderedJson measured = read_object(run.folder + "/" + kMeasuredFile);
  measured[stage.result] = *identity;
  return write_object(run.folder + "/" + kMeasuredFile, measured);
}

std::string log_of(const SweepRun& run) { return run.folder + "/" + kLogFile; }

}  // namespace emo
