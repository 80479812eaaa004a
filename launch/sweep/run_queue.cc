#include "launch/sweep/run_queue.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
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
#include "launch/sweep/run_files.h"
#include "launch/sweep/run_stages.h"
#include "train/stop_signal.h"

namespace emo {
namespace {

constexpr int kPollMicroseconds = 100'000;

std::string last_lines(const std::string& path, size_t count) {
  std::vector<std::string> lines;
  const std::string text = tail_of(path, 8192);
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.emplace_back(line);
  }
  if (lines.size() > count) lines.erase(lines.begin(), lines.end() - static_cast<long>(count));
  return absl::StrJoin(lines, "\n");
}

// How far a command is, by the last progress line of its log's part that begins at `begin`.
double progress_of(const std::string& log, int64_t begin) {
  const std::string text = tail_of(log, std::clamp<int64_t>(size_of(log) - begin, 0, 2048));
  static const std::regex percent(R"(/[0-9.kMG]+ +([0-9]+)%)");
  double share = 0;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), percent);
       it != std::sregex_iterator(); ++it) {
    absl::SimpleAtod((*it)[1].str(), &share);
  }
  return std::min(share, 100.0) / 100;
}

// Whether a command has ended because it was told to, and not because something is wrong.
bool was_stopped(int code) {
  return code == kExitStopped || code == 128 + SIGTERM || code == 128 + SIGINT ||
         code == 128 + SIGUSR1;
}

// A run that is being carried out.
struct Active {
  const SweepRun* run;
  std::vector<Stage> stages;  // left, the first is running
  FileLock lock;              // of the run's folder
  std::optional<ChildProcess> child;
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
    while (!waiting_.empty() || !active_.empty()) {
      if (stop_requested()) stop();
      while (!waiting_.empty() && static_cast<int>(active_.size()) < jobs_) start_next();
      ::usleep(kPollMicroseconds);
      look_at_children();
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
      absl::StatusOr<std::vector<Stage>> all = stages_of(sweep_, run, data_);
      if (!all.ok()) return all.status();
      absl::StatusOr<std::vector<Stage>> left = stages_left(sweep_, run, data_);
      if (!left.ok()) return left.status();
      for (const Stage& stage : *all) total_ += stage.work;
      for (const Stage& stage : *left) left_ += stage.work;
      if (!left->empty()) waiting_.push_back({&run, *std::move(left)});
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

  void start_next() {
    Waiting next = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    const SweepRun& run = *next.run;
    absl::Status status = posix_file_system().make_directories(run.folder);
    if (!status.ok()) return fail(run, next.stages, status);
    absl::StatusOr<FileLock> lock =
        FileLock::take(run.folder + "/" + kRunLock, FileLock::Held::kRefuse);
    if (!lock.ok()) {  // another process carries it out, and says how it ends
      std::fprintf(stderr, "\nemo: %s is left to who has it: %s\n", run.name.c_str(),
                   std::string(lock.status().message()).c_str());
      result_.failures.push_back({exit_code(lock.status()), std::string(lock.status().message())});
      return pass_over(next.stages);
    }
    // Who had it before may have done some of it.
    absl::StatusOr<std::vector<Stage>> left = stages_left(sweep_, run, data_);
    if (!left.ok()) return fail(run, next.stages, left.status());
    for (const Stage& stage : next.stages) done_ += stage.work;
    for (const Stage& stage : *left) done_ -= stage.work;
    status = forget_failure(run);
    if (!status.ok()) return fail(run, *left, status);
    if (left->empty()) return;
    Active active{&run, *std::move(left), *std::move(lock), std::nullopt, 0};
    status = start_stage(&active);
    if (!status.ok()) return fail(run, active.stages, status);
    active_.push_back(std::move(active));
  }

  // The first of those that are left.
  absl::Status start_stage(Active* active) const {
    const SweepRun& run = *active->run;
    const Stage& stage = active->stages.front();
    absl::Status status = begin_stage(run, stage);
    if (!status.ok()) return status;
    ChildCommand command = command_of(here_, run, stage, threads_of(run, jobs_));
    command.keeps_open = active->lock.descriptor();
    active->log_begin = size_of(log_of(run));
    absl::StatusOr<ChildProcess> child = ChildProcess::start(command);
    if (!child.ok()) return child.status();
    active->child = *std::move(child);
    return absl::OkStatus();
  }

  void look_at_children() {
    for (size_t i = 0; i < active_.size();) {
      const std::optional<ChildEnd> end = active_[i].child->poll();
      if (end && !after(&active_[i], *end)) {
        active_.erase(active_.begin() + static_cast<long>(i));
      } else {
        ++i;
      }
    }
  }

  // A stage has ended. Answers whether another of the run has begun.
  bool after(Active* active, const ChildEnd& end) {
    const SweepRun& run = *active->run;
    const Stage stage = active->stages.front();
    absl::Status status = record_cost(run, stage, end);
    if (end.code != kExitDone) {
      if (was_stopped(end.code)) {
        result_.stopped = true;
        pass_over(active->stages);
      } else {
        fail(run, active->stages,
             {end.code, absl::StrCat(stage.title, " ended with exit code ", end.code, "; ",
                                     log_of(run), " ends:\n", last_lines(log_of(run), 6))});
      }
      return false;
    }
    if (status.ok()) status = finish_stage(run, stage);
    if (status.ok()) {
      done_ += stage.work;
      active->stages.erase(active->stages.begin());
      if (active->stages.empty() || stopping_) return false;
      status = start_stage(active);
    }
    if (status.ok()) return true;
    fail(run, active->stages, status);
    return false;
  }

  void fail(const SweepRun& run, const std::vector<Stage>& stages, const absl::Status& status) {
    fail(run, stages, {exit_code(status), std::string(status.message())});
  }

  void fail(const SweepRun& run, const std::vector<Stage>& stages, const RunFailure& failure) {
    pass_over(stages);
    std::fprintf(stderr, "\nemo: %s failed: %s\n", run.name.c_str(), failure.what.c_str());
    result_.failures.push_back(failure);
    const absl::Status kept = write_failure(run, failure);
    if (!kept.ok()) std::fprintf(stderr, "emo: %s\n", std::string(kept.message()).c_str());
  }

  // Nothing of them is to come.
  void pass_over(const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) done_ += stage.work;
  }

  void stop() {
    waiting_.clear();
    result_.stopped = true;
    if (stopping_) return;
    stopping_ = true;
    // mpirun hands this one on, and ends its ranks at once for the others.
    for (const Active& active : active_) active.child->signal(SIGUSR1);
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
    if (stopping_) parts.emplace_back("stopping");
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
  bool stopping_ = false;
  double total_ = 0, left_ = 0, done_ = 0;
  double shown_ = 0;
};

}  // namespace

absl::StatusOr<QueueResult> carry_out(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                      const SweepData& data, int jobs) {
  return Queue(sweep, runs, data, jobs).carry_out();
}

}  // namespace emo
