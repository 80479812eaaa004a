// What was measured of one run, read from its folder.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "launch/sweep/intervals.h"
#include "launch/sweep/sweep_runs.h"

namespace emo {

// What a run cost; what was not measured is absent.
struct RunCost {
  std::optional<double> tokens_per_second;  // median of the last steps, all ranks
  std::optional<double> imbalance;          // largest of the layers, mean of the last steps
  std::optional<double> copies;             // of a token to other ranks, see measure.copies_on
  std::optional<double> copies_placed;      // the same, where emo experts place puts the experts
  std::optional<double> training_seconds;
  std::optional<double> measuring_seconds;
  std::optional<double> peak_memory_bytes;  // of training, of one process
};

struct RunResult {
  enum class State { kDone, kFailed, kMissing } state = State::kMissing;
  std::string error;  // of a failed one: RunFailure::what
  Json eval;          // of emo eval
  Json retention;     // of emo experts retention; null where experts are not cut
  RunCost cost;
};

// How a run ended that did not end well.
struct RunFailure {
  int exit_code = 0;
  std::string what;  // what was being done, and the last that its log says
};

// Kept in the run's folder, for who reports. Errors as of FileSystem.
absl::Status write_failure(const SweepRun& run, const RunFailure& failure);
absl::Status forget_failure(const SweepRun& run);  // OK where there is none

// DataLoss where a result of it cannot be read. kFailed where its last try has failed, or a loss is
// not a number; kMissing where something is left to be done: what stands there of another model or
// question is no result.
absl::StatusOr<RunResult> read_run_result(const SweepConfig& sweep, const SweepRun& run,
                                          const SweepData& data);

// A loss of each document of a domain.
struct DomainColumn {
  std::vector<std::string> ids;
  DocumentSums sums;
};
using Column = std::map<std::string, DomainColumn>;  // by label

enum class CutColumn { kLoss, kIncrease };

// The whole model on all test documents. REQUIRES: the run is done.
Column full_column(const RunResult& result);
// Of a cut, by its place in the retention's list. REQUIRES: the run is done and was cut.
Column cut_column(const RunResult& result, size_t cut, CutColumn which);

double mean_of(const Column& column);  // over domains

}  // namespace emo
