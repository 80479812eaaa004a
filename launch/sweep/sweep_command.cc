#include "launch/sweep/sweep_command.h"

#include <unistd.h>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/files/file_lock.h"
#include "data/files/file_system.h"
#include "data/program/exit_code.h"
#include "launch/sweep/run_queue.h"
#include "launch/sweep/run_stages.h"
#include "launch/sweep/slurm_script.h"
#include "launch/sweep/sweep_plan.h"
#include "launch/sweep/sweep_report.h"
#include "train/stop_signal.h"

namespace emo {
namespace {

struct Options {
  std::string sweep;
  SweepChanges changes;
  int jobs = 1;
  std::optional<int64_t> task;
  bool plan = false;
  bool slurm = false;
  bool report = false;
  bool json = false;
};

// One process does it; of many each would.
absl::Status check_alone() {
  const char* ranks = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (ranks == nullptr || std::string(ranks) == "1") return absl::OkStatus();
  return absl::InvalidArgumentError(
      "emo sweep starts the ranks of its runs itself: call it without mpirun");
}

// A folder says whose it is, from a sweep's first moment on; another sweep's results would stand
// among its own.
absl::Status claim_folder(const SweepConfig& sweep) {
  absl::Status status = posix_file_system().make_directories(sweep.folder);
  if (!status.ok()) return status;
  const std::string path = sweep.folder + "/sweep.name";
  const std::string name = file_name(sweep.path);
  if (!path_exists(path)) return write_file_durably(posix_file_system(), path, name + "\n");
  absl::StatusOr<std::string> other = read_file(path, 1 << 16);
  if (!other.ok()) return other.status();
  if (*other == name + "\n") return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(sweep.folder, ": holds the sweep ", *other, "Name another --folder"));
}

// Runs at the same time would all be on the first GPUs.
absl::Status check_devices(const std::vector<SweepRun>& runs, int jobs) {
  for (const SweepRun& run : runs) {
    if (jobs > 1 && run.config.parallel.device == DeviceKind::kCuda) {
      return absl::InvalidArgumentError(
          "--jobs: runs on GPUs are one after another here; --slurm gives each its own");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> report_on(const Options& options, const SweepConfig& sweep,
                              const std::vector<SweepRun>& runs, const SweepData& data) {
  absl::StatusOr<WrittenReport> report = write_report(sweep, runs, data);
  if (!report.ok()) return report.status();
  std::printf("%s", options.json ? to_text(report->json).c_str() : report->table.c_str());
  std::fprintf(
      stderr, "emo: %s/sweep.html, sweep.json and sweep.csv are written%s\n", sweep.folder.c_str(),
      report->missing == 0
          ? ""
          : absl::StrCat("; ", report->missing, " of ", runs.size(), " runs are missing").c_str());
  return kExitDone;
}

// What sbatch is given.
absl::StatusOr<int> write_slurm_script(const Options& options, const SweepConfig& sweep,
                                       const std::vector<SweepRun>& runs) {
  char folder[PATH_MAX] = {};
  if (::getcwd(folder, sizeof folder) == nullptr) return errno_status("cannot find", "this folder");
  std::vector<std::string> arguments = {options.sweep, "--folder", sweep.folder};
  arguments.insert(arguments.end(), options.changes.changes.begin(), options.changes.changes.end());
  const std::string path = sweep.folder + "/sweep.sbatch";
  absl::Status status = write_file_durably(
      posix_file_system(), path, slurm_script(sweep, runs, find_installation(), folder, arguments));
  if (!status.ok()) return status;
  std::printf("sbatch %s\n", shell_word(path).c_str());
  std::fprintf(
      stderr,
      "emo: %zu tasks; each writes the report of what is done when it ends, and so does, at "
      "any time, emo sweep with --report\n",
      runs.size());
  return kExitDone;
}

// One run, as a task of an array, and the report of what is done then. Other tasks write theirs
// meanwhile, so only its own must be right.
absl::StatusOr<int> run_task(const Options& options, const SweepConfig& sweep,
                             const std::vector<SweepRun>& runs) {
  if (*options.task < 0 || *options.task >= static_cast<int64_t>(runs.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("--task ", *options.task, ": there are tasks 0 to ", runs.size() - 1));
  }
  const std::vector<SweepRun> own = {runs[static_cast<size_t>(*options.task)]};
  absl::StatusOr<SweepData> data = check_runs(sweep, runs, own);
  if (!data.ok()) return data.status();
  absl::Status status = claim_folder(sweep);
  if (!status.ok()) return status;
  absl::StatusOr<QueueResult> result = carry_out(sweep, own, *data, 1);
  if (!result.ok()) return result.status();
  if (result->stopped) return kExitStopped;
  absl::StatusOr<WrittenReport> report = write_report(sweep, runs, *data);
  if (!report.ok()) return report.status();
  return result->failures.empty() ? kExitDone : result->failures.front().exit_code;
}

absl::StatusOr<int> show_plan(const Options& options, const SweepConfig& sweep,
                              const std::vector<SweepRun>& runs, const SweepData& data) {
  absl::StatusOr<SweepPlan> plan = plan_sweep(sweep, runs, data, options.jobs);
  if (!plan.ok()) return plan.status();
  std::printf(
      "%s", options.json ? to_text(to_json(*plan)).c_str() : to_table(*plan, options.jobs).c_str());
  return kExitDone;
}

absl::StatusOr<int> run_all(const Options& options, const SweepConfig& sweep,
                            const std::vector<SweepRun>& runs, const SweepData& data) {
  absl::Status status = claim_folder(sweep);
  if (!status.ok()) return status;
  absl::StatusOr<FileLock> lock =
      FileLock::take(sweep.folder + "/sweep.lock", FileLock::Held::kRefuse);
  if (!lock.ok()) return lock.status();
  absl::StatusOr<SweepPlan> plan = plan_sweep(sweep, runs, data, options.jobs);
  if (!plan.ok()) return plan.status();
  std::fprintf(stderr, "%s", to_table(*plan, options.jobs).c_str());
  status = check_disk(sweep, *plan);
  if (!status.ok()) return status;
  absl::StatusOr<QueueResult> result = carry_out(sweep, runs, data, options.jobs);
  if (!result.ok()) return result.status();
  absl::StatusOr<int> reported = report_on(options, sweep, runs, data);
  if (!reported.ok()) return reported.status();
  if (result->stopped) {
    std::fprintf(stderr, "emo: stopped by a signal, start the same command again\n");
    return kExitStopped;
  }
  return result->failures.empty() ? kExitDone : result->failures.front().exit_code;
}

absl::StatusOr<int> run(const Options& options) {
  absl::Status status = check_alone();
  if (!status.ok()) return status;
  if (options.plan + options.slurm + options.report + options.task.has_value() > 1) {
    return absl::InvalidArgumentError("--plan, --slurm, --report and --task exclude each other");
  }
  watch_stop_signals();
  absl::StatusOr<SweepConfig> sweep = read_sweep_config(options.sweep, options.changes);
  if (!sweep.ok()) return sweep.status();
  absl::StatusOr<std::vector<SweepRun>> runs = runs_of(*sweep);
  if (!runs.ok()) return runs.status();
  status = check_devices(*runs, options.jobs);
  if (!status.ok()) return status;
  if (options.task) return run_task(options, *sweep, *runs);
  absl::StatusOr<SweepData> data = check_runs(*sweep, *runs, *runs);
  if (!data.ok()) return data.status();
  if (options.plan) return show_plan(options, *sweep, *runs, *data);
  if (!options.report && !options.slurm) return run_all(options, *sweep, *runs, *data);
  status = claim_folder(*sweep);
  if (!status.ok()) return status;
  if (options.report) return report_on(options, *sweep, *runs, *data);
  return write_slurm_script(options, *sweep, *runs);
}

}  // namespace

Command sweep_command() {
  auto options = std::make_shared<Options>();
  Command command;
  command.name = "sweep";
  command.summary =
      "Train and measure several configs with several seeds, and say which are better; the same "
      "command goes on where it stopped";
  command.options.add("SWEEP", &options->sweep, "YAML file, see configs/sweeps/ and docs/sweeps.md")
      .required();
  command.options.add(
      "OVERRIDE", &options->changes.changes,
      "section.key=value on top of every arm's base; measure.key=value, seeds=[..], "
      "ranks=N, baseline=ARM in the place of the sweep's");
  command.options.add("--folder", &options->changes.folder,
                      "where everything goes; else as the sweep says, or runs/ and its name");
  command.options.add("--jobs", &options->jobs, "runs at a time; cores are shared among them")
      .at_least(1)
      .show_default();
  command.options.add("--plan", &options->plan,
                      "only check everything, and say what it takes: runs, minutes, disk");
  command.options.add(
      "--slurm", &options->slurm,
      "write a batch script with a task for each run, instead of running them here");
  command.options.add("--report", &options->report, "only write the report, of what is done");
  command.options.add("--task", &options->task,
                      "only the run of this number, as the script calls it");
  command.options.add("--json", &options->json,
                      "sweep.json (with --plan the plan) on standard output instead of the table");
  command.footer =
      "Example: emo sweep configs/sweeps/pools.yaml --jobs 2\n"
      "Exits 75 after SIGTERM, SIGINT or SIGUSR1, with what ran saved; where runs fail, as the "
      "first\n"
      "that failed.";
  command.run = [options] { return run(*options); };
  return command;
}

}  // namespace emo
