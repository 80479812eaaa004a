#include "launch/sweep/sweep_plan.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/file_system.h"
#include "eval/loss/calibration_data.h"
#include "launch/sweep/run_stages.h"
#include "model/parameters.h"
#include "train/stop_signal.h"

namespace emo {
namespace {

constexpr int64_t kModelBytes = 4;     // a parameter
constexpr int64_t kTrainedBytes = 12;  // with its moments
constexpr int64_t kStepBytes = 20;     // in memory while it is trained
constexpr int64_t kLossBytes = 24;     // a document's, as text

// What decides how fast a run trains, as text: runs of one shape are timed once.
std::string shape_of(const SweepRun& run) {
  std::string shape = absl::StrCat(run.ranks, "\n");
  for (const auto& [key, value] : to_pairs(run.config)) {
    const bool counts = absl::StartsWith(key, "model.") || absl::StartsWith(key, "parallel.") ||
                        key == "train.batch" || key == "train.micro_batches" ||
                        key == "data.sequence_length";
    if (counts && key != "model.init_seed") absl::StrAppend(&shape, key, "=", value, "\n");
  }
  return shape;
}

int64_t memory_bytes() {
  return static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGE_SIZE);
}

// Tokens a second of a run's training, over its ranks; nothing where that cannot be found out.
std::optional<double> time_steps(const SweepConfig& sweep, const SweepRun& run, int jobs) {
  const int64_t parameters = count_parameters(run.config.model).total;
  if (parameters * kStepBytes * run.ranks > memory_bytes() / 2) return std::nullopt;
  const Installation here = find_installation();
  if (run.ranks > 1 && here.scripts.empty()) return std::nullopt;
  absl::StatusOr<TemporaryFolder> folder = TemporaryFolder::create();
  if (!folder.ok()) return std::nullopt;
  Stage stage{Stage::Kind::kTrain, "timing", {"bench", "step", sweep.base}, "", "", ""};
  stage.arguments.insert(stage.arguments.end(), run.overrides.begin(), run.overrides.end());
  for (const char* more : {"--steps", "5", "--warmup", "2", "--json"}) {
    stage.arguments.emplace_back(more);
  }
  ChildCommand command = command_of(here, run, stage, threads_of(run, jobs));
  command.output = folder->path() + "/speed.json";
  command.log = folder->path() + "/log.txt";
  absl::StatusOr<ChildProcess> child = ChildProcess::start(command);
  if (!child.ok()) return std::nullopt;
  std::optional<ChildEnd> end;
  while (!(end = child->poll()) && !stop_requested()) ::usleep(20'000);
  if (!end) return std::nullopt;
  absl::StatusOr<Json> json = read_json_file(command.output);
  if (end->code != 0 || !json.ok() || !json->contains("tokens_per_second")) return std::nullopt;
  return (*json)["tokens_per_second"].get<double>();
}

// The folder that is there already, of a path that may not be.
std::string existing_parent(std::string path) {
  while (!is_directory(path)) path = parent_folder(path);
  return path;
}

int64_t free_bytes(const std::string& folder) {
  struct statvfs disk {};
  if (::statvfs(existing_parent(folder).c_str(), &disk) != 0) return 0;
  return static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
}

// What a run's stages that are left will have written: checkpoints, and losses of documents, which
// stand in sweep.json too.
int64_t disk_at_end(const SweepRun& run, const std::vector<Stage>& left, const SweepData& data) {
  int64_t documents = 0;
  for (const DatasetInfo::Shard& shard : data.test.shards) documents += shard.documents;
  int64_t bytes = 0;
  for (const Stage& stage : left) {
    bytes += 2 * documents * kLossBytes * stage.columns;
    if (stage.kind != Stage::Kind::kTrain) continue;
    const RunConfig::Checkpoint& checkpoint = run.config.checkpoint;
    const int64_t written =
        1 + (checkpoint.every > 0 ? (run.config.total_steps() - 1) / checkpoint.every : 0);
    const int64_t kept = checkpoint.keep > 0 ? std::min(checkpoint.keep, written) : written;
    const bool all = checkpoint.last == RunConfig::Checkpoint::Last::kAll;
    bytes += count_parameters(run.config.model).total *
             ((kept - 1) * kTrainedBytes + (all ? kTrainedBytes : kModelBytes));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<SweepPlan> plan_sweep(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                     const SweepData& data, int jobs) {
  SweepPlan plan;
  std::map<std::string, std::optional<double>> speeds;
  std::map<std::string, size_t> place;
  int64_t running = 0;  // the largest checkpoint while it is written
  bool known = true;
  double minutes = 0;
  for (const SweepRun& run : runs) {
    const auto [at, is_new] = place.try_emplace(run.arm->name, plan.arms.size());
    if (is_new) plan.arms.emplace_back().name = run.arm->name;
    ArmPlan& arm = plan.arms[at->second];
    const RunConfig& config = run.config;
    arm.parameters = count_parameters(config.model).total;
    arm.tokens = config.total_steps() * config.train.batch * config.data.sequence_length;
    ++arm.runs;
    absl::StatusOr<std::vector<Stage>> left = stages_left(sweep, run, data);
    if (!left.ok()) return left.status();
    if (left->empty()) continue;
    ++arm.left;
    arm.disk_bytes += disk_at_end(run, *left, data);
    running = std::max(running, arm.parameters * kTrainedBytes);  // one more while it is written
    double work = 0;
    for (const Stage& stage : *left) work += stage.work;
    const std::string shape = shape_of(run);
    if (!speeds.contains(shape)) speeds[shape] = time_steps(sweep, run, jobs);
    if (stop_requested()) return absl::CancelledError("stopped by a signal, before anything began");
    const std::optional<double> speed = speeds[shape];
    known = known && speed.has_value();
    if (!speed) continue;
    arm.minutes = arm.minutes.value_or(0) + work / *speed / 60;
    minutes += work / *speed / 60;
  }
  int64_t most_at_once = 0;
  for (const ArmPlan& arm : plan.arms) {
    plan.disk_bytes += arm.disk_bytes;
    most_at_once += arm.left;
  }
  plan.disk_bytes += running * std::min<int64_t>(jobs, most_at_once);
  if (known) plan.minutes = minutes / jobs;
  plan.free_bytes = free_bytes(sweep.folder);
  return plan;
}

absl::Status check_disk(const SweepConfig& sweep, const SweepPlan& plan) {
  if (plan.free_bytes >= plan.disk_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrFormat("%s: the sweep takes about %.1f MB of disk, %.1f MB are free there. Name "
                      "another --folder, or "
                      "make room",
                      sweep.folder, static_cast<double>(plan.disk_bytes) / 1e6,
                      static_cast<double>(plan.free_bytes) / 1e6));
}

std::string to_table(const SweepPlan& plan, int jobs) {
  size_t width = 5;
  for (const ArmPlan& arm : plan.arms) width = std::max(width, arm.name.size());
  const auto name = static_cast<int>(width);
  std::string table = absl::StrFormat("%-*s %5s %5s %12s %14s %8s %9s\n", name, "arm", "runs",
                                      "left", "parameters", "tokens a run", "minutes", "disk, MB");
  int64_t runs = 0;
  int64_t left = 0;
  const auto minutes = [](const std::optional<double>& m) {
    return m ? absl::StrFormat("%.1f", *m) : std::string("-");
  };
  for (const ArmPlan& arm : plan.arms) {
    runs += arm.runs;
    left += arm.left;
    absl::StrAppend(&table, absl::StrFormat("%-*s %5d %5d %12d %14d %8s %9.1f\n", name, arm.name,
                                            arm.runs, arm.left, arm.parameters, arm.tokens,
                                            arm.left == 0 ? "0" : minutes(arm.minutes),
                                            static_cast<double>(arm.disk_bytes) / 1e6));
  }
  absl::StrAppend(&table, runs, " runs, ", left, " left: ",
                  plan.minutes ? absl::StrCat("about ", minutes(plan.minutes), " minutes with ",
                                              jobs, " at a time")
                               : "how long is not known (a model is too large to be timed here)",
                  absl::StrFormat(", at most %.1f MB of disk (%.0f MB free)\n",
                                  static_cast<double>(plan.disk_bytes) / 1e6,
                                  static_cast<double>(plan.free_bytes) / 1e6));
  return table;
}

OrderedJson to_json(const SweepPlan& plan) {
  OrderedJson arms = OrderedJson::array();
  const auto minutes = [](const std::optional<double>& m) {
    return m ? OrderedJson(*m) : OrderedJson();
  };
  for (const ArmPlan& arm : plan.arms) {
    arms.push_back({{"name", arm.name},
                    {"runs", arm.runs},
                    {"left", arm.left},
                    {"parameters", arm.parameters},
                    {"tokens", arm.tokens},
                    {"minutes", arm.left == 0 ? OrderedJson(0.0) : minutes(arm.minutes)},
                    {"disk_bytes", arm.disk_bytes}});
  }
  return {{"arms", arms},
          {"minutes", minutes(plan.minutes)},
          {"disk_bytes", plan.disk_bytes},
          {"free_bytes", plan.free_bytes}};
}

}  // namespace emo
