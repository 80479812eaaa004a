// Retention: what a model loses when only the experts that a domain uses are kept.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "eval/open/open_model.h"
#include "parallel/mesh.h"

namespace emo {

// One way of choosing and weighing experts.
struct Cut {
  std::string method;            // of `emo experts rank`
  double keep = 0;               // fraction of num_experts, shared ones counted
  int64_t documents = 0;         // of calibration; 0: all of the label
  bool of_other_domain = false;  // ranked on the documents of the next label
  bool full_weights = false;     // weights as in the full model; else a softmax over the kept
};

// Losses in nats per token of one domain's test documents, or their mean over domains; NaN where
// there is nothing to predict.
struct Retention {
  double full = 0;               // all experts
  double no_routed_experts = 0;  // all routed experts off
  std::vector<double> cut;       // of each of RetentionReport::cuts
};

struct RetentionReport {
  std::vector<Cut> cuts;
  Retention mean;  // over domains, each with the same weight
  std::map<std::string, Retention> domains;
};

struct RetentionOptions {
  std::vector<double> fractions = {0.25, 0.125};
  std::vector<std::string> methods = {"router", "random"};
  std::vector<int64_t> documents;  // smaller calibration sizes, measured with the first method
  int64_t test_documents = 0;      // of each label, drawn by the seed; 0: all
  bool other_domain = false;       // also by the experts of the next label, with the first method
  uint64_t seed = 0;               // of the draw of documents, and of random subsets
  bool show_progress = true;
};

// The cuts that the options ask for: every method, fraction and weighing with all documents, the
// first method's with fewer documents (softmax over the kept), and with another domain's.
std::vector<Cut> cuts_of(const RetentionOptions& options);

// Collective. For each label that both data sets have: ranks experts on the calibration documents,
// cuts, and evaluates the test documents, each alone. InvalidArgument where a fraction keeps too
// many or too few, a label has fewer calibration documents than `documents` asks for (all such are
// listed), or no label is common.
absl::StatusOr<RetentionReport> measure_retention(const OpenedModel& model, const Mesh& mesh,
                                                  const TokenDataset& calibration,
                                                  const TokenDataset& test,
                                                  const RetentionOptions& options);

// {"full", "no_routed_experts", "cuts": [{"method", "keep", "documents": number or "all",
// "calibrated_on": "own" or "other", "weights": "kept" or "full", "loss", "increase"}],
// "domains": {label: the same}}
OrderedJson to_json(const RetentionReport& report);

// A table of the mean over domains and one row a domain, for each named model: of the cuts by all
// of a domain's own documents.
std::string to_table(const std::vector<std::pair<std::string, RetentionReport>>& reports);

}  // namespace emo
