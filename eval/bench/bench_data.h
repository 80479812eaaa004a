// `emo bench data`: how fast a run's data opens, and how fast one thread makes rows of it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "train/config/run_config.h"

namespace emo {

struct DataBenchOptions {
  int64_t rows = 2048;  // that are read, again and again: the first time from where they lie
  int64_t passes = 5;   // over them; the fastest counts
  bool cover = false;   // go through a whole epoch's order, and see that no chunk stands twice
  int64_t steps = 0;    // that wait for rows of theirs, which are read ahead
  double step_seconds = 0.1;  // that a step computes
  double read_delay_ms = 0;   // that every read of a file takes longer
};

// Local, one thread. An object:
//   chunks, seconds_to_open, seconds_to_first_step: of the config's batch, behind opening
//   cold_tokens_per_second: of the first pass; tokens_per_second: of the fastest, whose pages are
//   in
//     memory; both with spans, labels and what else a row has
//   resident_bytes: the most that the process had
//   with steps: seconds_waited_first, for the first step's rows; share_waited: of the time of all
//     later ones
//   with cover: sequences_per_epoch, seconds_to_cover; DataLoss where a chunk stands twice
absl::StatusOr<OrderedJson> bench_data(const RunConfig& config, const DataBenchOptions& options);

}  // namespace emo
