// Retention: what a model loses when only the experts that a domain uses are kept.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/json.h"
#include "eval/open_model.h"
#include "parallel/mesh.h"

namespace emo {

// Losses in nats per token of one domain's test documents, or their mean over domains.
struct Retention {
  double full = 0;                                 // all experts
  std::map<std::string, double> cut;               // by fraction, "0.25", and "random_0.25":
                                                   // the softmax runs over the kept experts
  std::map<std::string, double> cut_full_weights;  // the same, with the full model's weights
  double no_routed_experts = 0;                    // all routed experts off
};

struct RetentionReport {
  Retention mean;  // over domains, each with the same weight
  std::map<std::string, Retention> domains;
};

struct RetentionOptions {
  std::vector<double> fractions = {0.25, 0.125};  // of num_experts, shared ones counted
  uint64_t seed = 0;                              // of the random subset, of the first fraction
  bool show_progress = true;
};

// Collective. For each label that both data sets have: ranks experts on the calibration documents
// (router_scores), cuts, and evaluates the test documents.
absl::StatusOr<RetentionReport> measure_retention(const OpenedModel& model, const Mesh& mesh,
                                                  const TokenDataset& calibration,
                                                  const TokenDataset& test,
                                                  const RetentionOptions& options);

// {"full", "increase": {fraction: nats over full}, "increase_full_weights", "no_routed_experts",
// "domains": {label: the same}}
OrderedJson to_json(const RetentionReport& report);

// A table of the mean over domains and one row a domain, for each named model.
std::string to_table(const std::vector<std::pair<std::string, RetentionReport>>& reports);

}  // namespace emo
