// Retention: what a model loses when only the experts that a domain uses are kept.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "eval/open/open_model.h"
#include "parallel/mesh.h"
#include "train/subset/keep.h"

namespace emo {

// One way of choosing and weighing experts.
struct Cut {
  std::string method;            // of `emo experts rank`
  Keep keep;                     //
  int64_t documents = 0;         // of calibration; 0: all of the label
  bool of_other_domain = false;  // ranked on the documents of the next label
  bool full_weights = false;     // weights as in the full model; else a softmax over the kept
};

// What was measured of one domain: C = 2 + cuts columns, first with all experts, then with no
// routed ones, then each cut.
struct DomainLosses {
  std::vector<std::string> ids;             // [N] of the test documents
  std::vector<double> tokens;               // [N] that are predicted
  std::vector<std::vector<double>> losses;  // [C][N] nats, the sum over a document's tokens
};

struct RetentionReport {
  int64_t num_experts = 0;
  std::vector<Cut> cuts;
  std::map<std::string, DomainLosses> domains;
};

struct RetentionOptions {
  std::vector<Keep> keeps;
  std::vector<std::string> methods = {"router", "random"};
  std::vector<int64_t> documents;  // smaller calibration sizes, measured with the first method
  int64_t test_documents = 0;      // of each label, drawn by the seed; 0: all
  bool other_domain = false;       // also by the experts of the next label, with the first method
  uint64_t seed = 0;               // of the draw of documents, and of random subsets
};

// How a measurement goes on, for who shows or keeps it. All are called on every rank, in the same
// order; functions may be empty.
struct RetentionProgress {
  std::map<std::string, DomainLosses> known;   // domains that were measured before
  std::function<void(int64_t passes)> begins;  // over all domains' documents, known ones included
  std::function<void(const std::string& domain, int64_t passes)> passed;
  // Every rank must answer the same.
  std::function<absl::Status(const std::string& domain, const DomainLosses& losses)> measured;
};

// The cuts that the options ask for: every method, share and weighing with all documents, the
// first method's with fewer documents (softmax over the kept), and with another domain's.
std::vector<Cut> cuts_of(const RetentionOptions& options);

// InvalidArgument where a model has no experts, or not those that the options keep.
absl::Status check_cuts(const ModelConfig& config, const RetentionOptions& options);

// Collective. For each label that both data sets have: ranks experts on the calibration documents,
// cuts, and evaluates the test documents, each alone. InvalidArgument as check_cuts(), or where a
// label has fewer calibration documents than `documents` asks for (all such are listed), or no
// label is common.
absl::StatusOr<RetentionReport> measure_retention(const OpenedModel& model, const Mesh& mesh,
                                                  const TokenDataset& calibration,
                                                  const TokenDataset& test,
                                                  const RetentionOptions& options,
                                                  const RetentionProgress& progress);

// {"full", "no_routed_experts", "cuts": [{"method", "keep", "experts", "documents": number or
// "all", "calibrated_on": "own" or "other", "weights": "kept" or "full", "loss", "increase",
// "standard_error" of the increase}], "standard_error" of the full loss,
// "documents", "tokens", "domains": {label: the same, and "by_document": {"ids", "tokens", "full",
// "no_routed_experts", "cuts": [of each cut]}, lists of a number for each document}}. Losses are
// nats per token; standard errors are over documents, as if drawn from many; null where there is
// nothing to predict.
OrderedJson to_json(const RetentionReport& report);

// A table of the mean over domains and one row a domain, for each named model: of the cuts by all
// of a domain's own documents.
std::string to_table(const std::vector<std::pair<std::string, RetentionReport>>& reports);

}  // namespace emo
