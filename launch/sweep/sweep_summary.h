// What came out of a sweep, arm by arm.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "launch/sweep/comparison.h"
#include "launch/sweep/run_results.h"

namespace emo {

using BySeed = std::map<uint64_t, double>;

// A way of cutting, as emo experts retention names it.
struct CutSummary {
  OrderedJson properties;  // {"method", "keep", "experts", "documents", "calibrated_on", "weights"}
  BySeed increase;         // nats per token over all experts, mean over domains
  BySeed loss;             //
  std::optional<Comparison> increase_against, loss_against;  // the baseline
  // Whether it is what tables and sentences are about: by the first method and all of a domain's
  // own documents, a softmax over the kept.
  bool is_main = false;
};

// Answers to a task, by its own metric (docs/tasks.md).
struct TaskSummary {
  std::string metric;
  BySeed value;
};

struct ArmSummary {
  const SweepArm* arm = nullptr;
  BySeed full;                             // loss of the whole model, mean over domains
  std::optional<Comparison> full_against;  // the baseline
  std::vector<CutSummary> cuts;            // none where experts are not cut
  std::map<std::string, TaskSummary> tasks;
  RunCost cost;     // means over seeds
  size_t runs = 0;  // that were asked for
};

// REQUIRES: results [runs].
std::vector<ArmSummary> summarise(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                                  const std::vector<RunResult>& results);

std::vector<double> values_of(const BySeed& by_seed);

// "u4-28 against none, 95 % over 3 seeds: full loss worse by 0.031 (0.012 to 0.050); with 25 % of
// the experts better by ..."; what is wrong where nothing can be said.
std::string sentence_of(const SweepConfig& sweep, const ArmSummary& arm);

// A table with a row for each arm, and its sentences.
std::string to_table(const SweepConfig& sweep, const std::vector<ArmSummary>& arms);

std::string keep_text(const CutSummary& cut);  // "25 %" or "32 experts"

}  // namespace emo
