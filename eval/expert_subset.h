// Which experts of a model are kept: ranking them by use, and the files that say so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/json.h"
#include "model/config.h"
#include "model/router.h"

namespace emo {

// SUBSET.json. Expert numbers are the model's, ascending, shared experts last; a dense layer keeps
// none.
struct SubsetFile {
  std::string checkpoint;
  std::string method;  // "router": summed router probability of one pass
  std::string label;
  int64_t keep = 0;                                          // shared experts counted
  std::vector<std::vector<int64_t>> experts_kept_per_layer;  // [L][keep]
  std::vector<std::vector<double>> scores;                   // [L][E] of routed experts
};

// How many experts a fraction keeps: round(fraction * num_experts), shared ones counted.
int64_t experts_of_fraction(const ModelConfig& config, double fraction);

// InvalidArgument where `keep` leaves no routed expert, or is more than there are.
absl::Status check_keep(const ModelConfig& config, int64_t keep);

// For each layer the keep - shared routed experts of largest score, ties to the lower number, and
// the shared ones. scores [L][E].
std::vector<std::vector<int64_t>> keep_largest(const ModelConfig& config,
                                               const std::vector<std::vector<double>>& scores,
                                               int64_t keep);

// Scores that make keep_largest choose at random, the same for the same seed. [L][E]
std::vector<std::vector<double>> random_scores(const ModelConfig& config, uint64_t seed);

// What the router is told. [L]
std::vector<ExpertSubset> to_subsets(const ModelConfig& config,
                                     const std::vector<std::vector<int64_t>>& kept,
                                     bool full_weights);

OrderedJson to_json(const SubsetFile& subset);

// DataLoss, listing everything that is wrong, where the file does not fit the model.
absl::StatusOr<SubsetFile> read_subset(const std::string& path, const ModelConfig& config);

}  // namespace emo
