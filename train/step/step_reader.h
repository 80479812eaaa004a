// The rows of coming steps, read while a step computes, so that no step waits for a disk.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"
#include "train/run_data.h"
#include "train/step/step_batches.h"

namespace emo {

struct ReadAhead {
  int64_t first_sequence = 0;  // of the first step
  int64_t steps = 0;           // that will be asked for; none is read behind them
  int64_t depth = 8;           // steps that are read, or being read, at a time
  int threads = 16;            // that read, a step each: they wait for disks, not for a processor
};

// How many steps ahead to read: 16, or as many as 256 MB hold, but two at least.
int64_t read_ahead_depth(const RunConfig& config, int64_t ranks);

// Not collective: ranks can fail alone. What it answers is what load_step() answers, in order; how
// far it read when it is destroyed changes nothing, since rows follow from sequence numbers.
class StepReader {
 public:
  // What is referred to must outlive it.
  StepReader(const RunData& data, const RunConfig& config, const Mesh& mesh, ReadAhead ahead);
  // Waits for reads that are under way.
  ~StepReader();
  StepReader(const StepReader&) = delete;
  StepReader& operator=(const StepReader&) = delete;

  // The next step's rows; an error when its step comes, not before. Waits where they are not there.
  // By one thread. REQUIRES: at most `steps` calls.
  absl::StatusOr<StepBatches> next();
  double seconds_waited() const { return seconds_waited_; }  // in next(), all of them

 private:
  void read_steps();

  const RunData& data_;
  const RunConfig& config_;
  const Mesh& mesh_;
  const ReadAhead ahead_;
  double seconds_waited_ = 0;
  std::mutex mutex_;
  std::condition_variable arrived_;  // rows of a step, or an error
  std::condition_variable room_;     // for one step more to be read
  int64_t asked_ = 0;                // steps that next() has answered
  int64_t started_ = 0;              // steps that a thread has begun to read
  bool stopping_ = false;
  std::map<int64_t, absl::StatusOr<StepBatches>> read_;  // by number of the step
  std::vector<std::thread> threads_;
};

}  // namespace emo
