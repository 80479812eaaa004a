#include "launch/sweep/run_queue.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>
#include <regex>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/files/file_lock.h"
#include "data/files/file_system.h"
#include "data/program/exit_code.h"
#include "data/program/progress.h"
#include "launch/sweep/run_stages.h"
#include "train/stop_signal.h"

namespace emo {
namespace {

constexpr int kPollMicroseconds = 100'000;

// The end of a log: what a command said last.
std::string tail(const std::string& path, int64_t bytes) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const int64_t size = file ? static_cast<int64_t>(file.tellg()) : 0;
  std::string text(static_cast<size_t>(std::min(size, bytes)), '\0');
  file.seekg(size - static_cast<int64_t>(text.size()));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

std::string last_lines(const std::string& path, size_t count) {
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(tail(path, 8192), '\n', absl::SkipEmpty())) {
    lines.emplace_back(line);
  }
  if (lines.size() > count) lines.erase(lines.begin(), lines.end() - static_cast<long>(count));
  return absl::StrJoin(lines, "\n");
}

// How far a command is, by the last progress line of its log.
double progress_of(const std::string& log, int64_t since) {
  std::ifstream file(log, std::ios::binary | std::ios::ate);
  const int64_t size = file ? static_cast<int64_t>(file.tellg()) : 0;
  const std::string text = tail(log, std::min<int64_t>(2048, std::max<int64_t>(0, size - since)));
  static const std::regex percent(R"(/[0-9.kMG]+ +([0-9]+)%)");
  double share = 0;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), percent);
       it != std::sregex_iterator(); ++it) {
    absl::SimpleAtod((*it)[1].str(), &share);
  }
  return std::min(share, 100.0) / 100;
}

int64_t size_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  return file ? static_cast<int64_t>(file.tellg()) : 0;
}

// A run that is being carried out.
struct Active {
  const SweepRun* run;
  std::vector<Stage> stages;  // left, the first is running
  FileLock lock;              // of the run's folder
  ChildProcess child;
  int64_t log_begin = 0;  // where the stage's part of the log begins
};

class Queue {
 public:
  Queue(const SweepConfig& sweep, const std::vector<SweepRun>& runs, const SweepData& data,
        int jobs)
      : sweep_(sweep), runs_(runs), data_(data), jobs_(jobs), here_(find_installation()) {}

  absl::StatusOr<QueueResult> carry_out() {
    absl::Status status = find_what_is_left();
    if (!status.ok()) return status;
    Progress progress("sweep", static_cast<int64_t>(total_), "tokens", /*shown=*/true);
    watch_stop_signals();
    while (!waiting_.empty() || !active_.empty()) {
      if (stop_requested()) stop();
      while (!waiting_.empty() && static_cast<int>(active_.size()) < jobs_) {
        status = start_next();
        if (!status.ok()) return status;
      }
      ::usleep(kPollMicroseconds);
      status = look_at_children();
      if (!status.ok()) return status;
      progress.update(static_cast<int64_t>(done_now()), note());
    }
    return result_;
  }

 private:
  struct Waiting {
    const SweepRun* run;
    std::vector<Stage> stages;
  };

  absl::Status find_what_is_left() {
    for (const SweepRun& run : runs_) {
      absl::StatusOr<std::vector<Stage>> stages = stages_left(sweep_, run, data_);
      if (!stages.ok()) return stages.status();
      for (const Stage& stage : stages_of(sweep_, run, data_)) total_ += stage.work;
      for (const Stage& stage : *stages) left_ += stage.work;
      if (!stages->empty()) waiting_.push_back({&run, *std::move(stages)});
    }
    done_ = total_ - left_;
    const bool needs_ranks = std::any_of(waiting_.begin(), waiting_.end(),
                                         [](const Waiting& w) { return w.run->ranks > 1; });
    if (needs_ranks && here_.scripts.empty()) {
      return absl::NotFoundError(
          "runs of several ranks are started by launch/mpirun.sh, which is not beside this "
          "program's build folder; `ranks: 1` needs none");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ChildProcess> start_stage(const SweepRun& run, const Stage& stage) const {
    return ChildProcess::start(command_of(here_, run, stage, threads_of(run, jobs_)));
  }

  absl::Status start_next() {
    Waiting next = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    const SweepRun& run = *next.run;
    absl::Status status = posix_file_system().make_directories(run.folder);
    if (!status.ok()) return status;
    absl::StatusOr<FileLock> lock =
        FileLock::take(run.folder + "/run.lock", FileLock::Held::kRefuse);
    if (!lock.ok()) {  // another process carries it out, and says how it ends
      std::fprintf(stderr, "\nemo: %s is left to who has it: %s\n", run.name.c_str(),
                   std::string(lock.status().message()).c_str());
      result_.failures.push_back({exit_code(lock.status()), std::string(lock.status().message())});
      pass_over(next.stages);
      return absl::OkStatus();
    }
    status = forget_failure(run);
    if (!status.ok()) return status;
    const int64_t log_begin = size_of(log_of(run));
    absl::StatusOr<ChildProcess> child = start_stage(run, next.stages.front());
    if (!child.ok()) return child.status();
    active_.push_back(
        {&run, std::move(next.stages), *std::move(lock), *std::move(child), log_begin});
    return absl::OkStatus();
  }

  absl::Status look_at_children() {
    for (size_t i = 0; i < active_.size();) {
      Active& active = active_[i];
      const std::optional<ChildEnd> end = active.child.poll();
      if (!end) {
        ++i;
        continue;
      }
      absl::StatusOr<bool> goes_on = after(&active, *end);
      if (!goes_on.ok()) return goes_on.status();
      if (!*goes_on) active_.erase(active_.begin() + static_cast<long>(i));
    }
    return absl::OkStatus();
  }

  // A stage has ended. Answers whether another of the run has begun.
  absl::StatusOr<bool> after(Active* active, const ChildEnd& end) {
    const SweepRun& run = *active->run;
    const Stage stage = active->stages.front();
    if (end.code != kExitDone) {
      if (result_.stopped) return false;
      pass_over(active->stages);
      const RunFailure failure{
          end.code, absl::StrCat(stage.title, " ended with exit code ", end.code, "; ", log_of(run),
                                 " ends:\n", last_lines(log_of(run), 6))};
      std::fprintf(stderr, "\nemo: %s failed: %s\n", run.name.c_str(), failure.what.c_str());
      result_.failures.push_back(failure);
      absl::Status status = write_failure(run, failure);
      if (!status.ok()) return status;
      return false;
    }
    absl::Status status = finish_stage(sweep_, run, data_, stage, end);
    if (!status.ok()) return status;
    done_ += stage.work;
    active->stages.erase(active->stages.begin());
    if (active->stages.empty() || result_.stopped) return false;
    active->log_begin = size_of(log_of(run));
    absl::StatusOr<ChildProcess> child = start_stage(run, active->stages.front());
    if (!child.ok()) return child.status();
    active->child = *std::move(child);
    return true;
  }

  // Nothing of them is to come.
  void pass_over(const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) done_ += stage.work;
  }

  void stop() {
    waiting_.clear();
    if (result_.stopped) return;
    result_.stopped = true;
    // mpirun hands this one on, and ends its ranks at once for the others.
    for (const Active& active : active_) active.child.signal(SIGUSR1);
  }

  // A progress line never goes back.
  double done_now() {
    double done = done_;
    for (const Active& active : active_) {
      done += active.stages.front().work * progress_of(log_of(*active.run), active.log_begin);
    }
    return shown_ = std::max(shown_, done);
  }

  std::string note() const {
    std::vector<std::string> parts;
    for (const Active& active : active_) {
      const auto number = static_cast<size_t>(active.run - runs_.data()) + 1;
      parts.push_back(absl::StrCat(active.run->name, " (", number, "/", runs_.size(), ") ",
                                   active.stages.front().title));
    }
    if (result_.stopped) parts.emplace_back("stopping");
    return absl::StrJoin(parts, ", ");
  }

  const SweepConfig& sweep_;
  const std::vector<SweepRun>& runs_;
  const SweepData& data_;
  const int jobs_;
  const Installation here_;
  std::vector<Waiting> waiting_;
  std::vector<Active> active_;
  QueueResult result_;
  double total_ = 0, left_ = 0, done_ = 0;
  double shown_ = 0;
};

}  // namespace

absl::StatusOr<QueueResult> carry_out(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                      const SweepData& data, int jobs) {
  return Queue(sweep, runs, data, jobs).carry_out();
}

}  // namespace emo
