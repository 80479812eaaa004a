// Which experts of a model are kept, and the files that say so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"
#include "model/config.h"
#include "model/router.h"

namespace emo {

// The kept experts of each layer: their numbers in the model, ascending, shared experts last; none
// in a dense layer. [L][keep]
using KeptExperts = std::vector<std::vector<int64_t>>;

// Ways of choosing them, see `emo experts rank`.
inline const std::vector<std::string>& ranking_methods() {
  static const std::vector<std::string> methods = {"layerwise", "router", "easy_ep", "random"};
  return methods;
}

// SUBSET.json: what is kept, and how that was chosen.
struct SubsetFile {
  std::string checkpoint;                   // the folder it was chosen from, as it was named then
  std::string identity;                     // of the model in it (model_identity.h)
  std::string method;                       // "layerwise", "router", "easy_ep", "random"
  std::vector<std::string> labels;          // of the calibration documents
  std::vector<std::string> calibration;     // their ids, in the order in which they were drawn
  double calibration_tokens = 0;            //
  uint64_t seed = 0;                        // of the draw, or of the random choice
  KeptExperts experts_kept_per_layer;       //
  std::vector<std::vector<double>> scores;  // [L][E] of routed experts
};

// InvalidArgument where `keep` leaves no routed expert, or is more than a layer has.
absl::Status check_keep(const ModelConfig& config, int64_t keep);
// The same for budgets [L] that differ by layer (those of dense layers are ignored); lists all that
// is wrong.
absl::Status check_keep(const ModelConfig& config, const std::vector<int64_t>& keep);

// The keep - shared routed experts of a layer of largest score [E], ties to the lower number, and
// the shared ones.
std::vector<int64_t> keep_largest(const ModelConfig& config, int64_t layer,
                                  const std::vector<double>& scores, int64_t keep);
// The same for each layer. scores [L][E], keep [L].
KeptExperts keep_largest(const ModelConfig& config, const std::vector<std::vector<double>>& scores,
                         const std::vector<int64_t>& keep);

// Scores that make keep_largest choose at random, the same for the same seed. [L][E]
std::vector<std::vector<double>> random_scores(const ModelConfig& config, uint64_t seed);

// What the router is told.
ExpertSubset to_subset(const ModelConfig& config, int64_t layer, const std::vector<int64_t>& kept,
                       bool full_weights);
std::vector<ExpertSubset> to_subsets(const ModelConfig& config, const KeptExperts& kept,
                                     bool full_weights);  // [L]

OrderedJson to_json(const SubsetFile& subset);

// DataLoss where it was chosen from another model than that of `identity` (cut_model.h; "" asks for
// none), or, listing everything that is wrong, does not fit the sizes of the model.
absl::StatusOr<SubsetFile> read_subset(const std::string& path, const ModelConfig& config,
                                       const std::string& identity);

}  // namespace emo
