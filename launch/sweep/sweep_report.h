// What a sweep leaves in its folder: sweep.json, sweep.csv and sweep.html.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "launch/sweep/sweep_summary.h"

namespace emo {

// docs/sweeps.md says what stands in it. Not finite numbers are null.
OrderedJson to_json(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                    const std::vector<RunResult>& results, const std::vector<ArmSummary>& arms);

// A row for each arm, seed, domain ("mean": of all) and way of cutting: "none" for the whole model
// on all test documents.
std::string to_csv(const std::vector<SweepRun>& runs, const std::vector<RunResult>& results);

struct WrittenReport {
  OrderedJson json;
  std::string table;   // for people
  size_t missing = 0;  // runs that are neither done nor failed
};

// Writes all three into the sweep's folder; sweep.html by the script beside this program, and says
// on standard error where that cannot be. Errors as of FileSystem and
// read_run_result().
absl::StatusOr<WrittenReport> write_report(const SweepConfig& sweep,
                                           const std::vector<SweepRun>& runs,
                                           const SweepData& data);

}  // namespace emo
