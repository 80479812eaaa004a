// `emo bench step`: how fast a config's training step runs on this machine, and where its time
// goes.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"

namespace emo {

struct BenchOptions {
  int64_t warmup_steps = 2;
  int64_t steps = 5;
  // File for a timeline of the last step: of all ranks (parallel/trace.h), or on a device of the
  // first (eval/bench/device_trace.h); empty: none.
  std::string trace;
  bool overwrite = false;  // the trace's file where it stands already
};

// Collective. Steps on the config's data from the weights that a new run would begin with
// (run.start_from, run.experts), without touching run.folder. Times are the median step's;
// the matrix-product peak, in the config's precision (resolved: train/step/precision.h), is
// measured between steps, on all ranks at once. `loss` is the last step's.
// `exchange_bytes_per_step` is what a rank sends in the expert exchange, the mean over ranks;
// gradients and parameters are not in it. `exchange_wait_seconds_per_step` is what it waits there,
// `expert_rows_max_over_mean` the pairs of row and expert of the busiest rank over the mean, layer
// by layer; both only where experts are on several ranks, and on the CPU.
absl::StatusOr<OrderedJson> bench_step(const RunConfig& config, const Mesh& mesh,
                                       const BenchOptions& options);

}  // namespace emo
