// What is done for one run, a command of this program after another, and what of it is done
// already.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/sweep/child_process.h"
#include "launch/sweep/sweep_runs.h"

namespace emo {

// Where this program stands, and what it finds beside itself.
struct Installation {
  std::string program;  // this executable
  std::string scripts;  // launch/ of the checkout that it was built in; "": not found
  std::string python;   // with what plots need; "": not found
};
Installation find_installation();

struct Stage {
  enum class Kind { kTrain, kEval, kRetention, kPlace } kind;
  const char* title;                   // "training"
  std::vector<std::string> arguments;  // of this program
  std::string output;    // file in the run's folder that its standard output becomes; "": none
  std::string result;    // file in the run's folder that stands when it is done; "": of training
  std::string question;  // what decides the result beside the model, but for where things stand
  double work = 0;       // tokens' backward passes, or as many forward passes for three
  int64_t columns = 0;   // losses of each document that it writes
};

// All of a run's stages, in order. Errors of task files that cannot be read.
absl::StatusOr<std::vector<Stage>> stages_of(const SweepConfig& sweep, const SweepRun& run,
                                             const SweepData& data);

// Of them, those that are left: whose result is not there, or is of another model or question.
// Changes nothing. Errors as is_trained() and stages_of().
absl::StatusOr<std::vector<Stage>> stages_left(const SweepConfig& sweep, const SweepRun& run,
                                               const SweepData& data);

// Threads of each process of a run, of `jobs` at a time: an equal part of the cores that this
// process may use, or what OMP_NUM_THREADS says.
int threads_of(const SweepRun& run, int jobs);

// What starts a stage: `threads` for each process.
ChildCommand command_of(const Installation& here, const SweepRun& run, const Stage& stage,
                        int threads);

// Removes the result of a stage that is left, and what a killed command has left of it. REQUIRES,
// as the two below: this process holds the run's lock. Errors as of FileSystem.
absl::Status begin_stage(const SweepRun& run, const Stage& stage);

// However its command has ended: adds what it cost to cost.json; of a measurement only the last
// counts.
absl::Status record_cost(const SweepRun& run, const Stage& stage, const ChildEnd& end);

// After its command has ended well: its result takes its place.
absl::Status finish_stage(const SweepRun& run, const Stage& stage);

std::string log_of(const SweepRun& run);  // file of all that its commands say

}  // namespace emo
