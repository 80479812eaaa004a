#include "train/subset/expert_subset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/order/random_bits.h"

namespace emo {

absl::Status check_keep(const ModelConfig& config, const std::vector<int64_t>& keep) {
  if (static_cast<int64_t>(keep.size()) != config.n_layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        keep.size(), " numbers of experts to keep, the model has ", config.n_layers, " layers"));
  }
  std::vector<std::string> wrong;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    const int64_t kept = keep[layer];
    if (kept > config.num_shared_experts && kept <= config.experts(layer)) continue;
    wrong.push_back(absl::StrCat("keep ", kept, " experts of ", config.experts(layer), " in layer ",
                                 layer, ", of which ", config.num_shared_experts,
                                 " are shared: from ", config.num_shared_experts + 1, " to ",
                                 config.experts(layer), " are possible"));
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
}

absl::Status check_keep(const ModelConfig& config, int64_t keep) {
  if (keep > config.num_shared_experts && keep <= config.num_experts) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("keep ", keep, " experts of ", config.num_experts, ", of which ",
                   config.num_shared_experts, " are shared: from ", config.num_shared_experts + 1,
                   " to ", config.num_experts, " are possible"));
}

std::vector<int64_t> keep_largest(const ModelConfig& config, int64_t layer,
                                  const std::vector<double>& scores, int64_t keep) {
  std::vector<int64_t> experts(config.routed_experts(layer));
  std::iota(experts.begin(), experts.end(), 0);
  std::stable_sort(experts.begin(), experts.end(),
                   [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  experts.resize(keep - config.num_shared_experts);
  std::sort(experts.begin(), experts.end());
  for (int64_t e = config.routed_experts(layer); e < config.experts(layer); ++e) {
    experts.push_back(e);
  }
  return experts;
}

KeptExperts keep_largest(const ModelConfig& config, const std::vector<std::vector<double>>& scores,
                         const std::vector<int64_t>& keep) {
  KeptExperts kept(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    kept[layer] = keep_largest(config, layer, scores[layer], keep[layer]);
  }
  return kept;
}

std::vector<std::vector<double>> random_scores(const ModelConfig& config, uint64_t seed) {
  std::vector<std::vector<double>> scores(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (int64_t e = 0; e < config.routed_experts(layer); ++e) {
      scores[layer].push_back(static_cast<double>(
          random_bits(seed, static_cast<uint64_t>(layer), static_cast<uint64_t>(e)) >> 11));
    }
  }
  return scores;
}

ExpertSubset to_subset(const ModelConfig& config, int64_t layer, const std::vector<int64_t>& kept,
                       bool full_weights) {
  ExpertSubset subset;
  subset.full_weights = full_weights;
  subset.kept.assign(config.routed_experts(layer), 0);
  for (const int64_t e : kept) {
    if (e < config.routed_experts(layer)) subset.kept[e] = 1;
  }
  return subset;
}

std::vector<ExpertSubset> to_subsets(const ModelConfig& config, const KeptExperts& kept,
                                     bool full_weights) {
  std::vector<ExpertSubset> subsets(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (!config.is_dense(layer)) {
      subsets[layer] = to_subset(config, layer, kept[layer], full_weights);
    }
  }
  return subsets;
}

OrderedJson to_json(const SubsetFile& subset) {
  return {{"checkpoint", subset.checkpoint},
          {"identity", subset.identity},
          {"method", subset.method},
          {"labels", subset.labels},
          {"seed", subset.seed},
          {"calibration_tokens", subset.calibration_tokens},
          {"calibration_documents", subset.calibration},
          {"experts_kept_per_layer", subset.experts_kept_per_layer},
          {"scores", subset.scores}};
}

namespace {

// What is wrong with one layer's kept experts.
void check_layer(const ModelConfig& config, int64_t layer, const std::vector<int64_t>& experts,
                 std::vector<std::string>* wrong) {
  if (config.is_dense(layer)) {
    if (!experts.empty()) {
      wrong->push_back(absl::StrCat("layer ", layer, " is dense and keeps no experts"));
    }
    return;
  }
  const int64_t count = config.experts(layer);
  int64_t routed = 0;
  int64_t shared = 0;
  for (size_t i = 0; i < experts.size(); ++i) {
    if (experts[i] < 0 || experts[i] >= count) {
      wrong->push_back(absl::StrCat("layer ", layer, ": expert ", experts[i], " of ", count));
      continue;
    }
    if (i > 0 && experts[i] <= experts[i - 1]) {
      wrong->push_back(
          absl::StrCat("layer ", layer, ": experts must ascend, ", experts[i], " does not"));
    }
    ++(experts[i] < config.routed_experts(layer) ? routed : shared);
  }
  if (shared != config.num_shared_experts) {
    wrong->push_back(absl::StrCat("layer ", layer, ": all ", config.num_shared_experts,
                                  " shared experts must be kept"));
  }
  if (routed == 0) wrong->push_back(absl::StrCat("layer ", layer, ": no routed expert is kept"));
}

// JSON's reader would round 4.5, and wrap what is too large.
absl::Status check_whole_numbers(const Json& layers, const std::string& path) {
  for (const Json& layer : layers) {
    for (const Json& expert : layer) {
      if (expert.is_number_integer() && expert <= std::numeric_limits<int32_t>::max()) continue;
      return absl::DataLossError(absl::StrCat(path, ": experts_kept_per_layer has ", expert.dump(),
                                              ", expected the number of an expert"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SubsetFile> read_subset(const std::string& path, const ModelConfig& config,
                                       const std::string& identity) {
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  SubsetFile subset;
  absl::Status status;
  const auto read = [&](const char* key, auto* value) {
    auto field = json_field_or(*json, key, *value, path);
    status.Update(field.status());
    if (field.ok()) *value = *std::move(field);
  };
  read("original_model", &subset.checkpoint);  // as pruning_metadata.json calls it
  read("checkpoint", &subset.checkpoint);
  read("identity", &subset.identity);
  read("method", &subset.method);
  read("labels", &subset.labels);
  read("seed", &subset.seed);
  read("calibration_tokens", &subset.calibration_tokens);
  read("calibration_documents", &subset.calibration);
  read("scores", &subset.scores);
  absl::StatusOr<KeptExperts> kept = json_field<KeptExperts>(*json, "experts_kept_per_layer", path);
  status.Update(kept.status());
  if (kept.ok()) status.Update(check_whole_numbers((*json)["experts_kept_per_layer"], path));
  if (!status.ok()) return status;
  subset.experts_kept_per_layer = *std::move(kept);
  if (!identity.empty() && !subset.identity.empty() && subset.identity != identity) {
    return absl::DataLossError(
        absl::StrCat(path, ": these experts were chosen from another model, ", subset.checkpoint,
                     " or a subset of it; rank those of this one with emo experts rank"));
  }
  const KeptExperts& layers = subset.experts_kept_per_layer;
  std::vector<std::string> wrong;
  if (static_cast<int64_t>(layers.size()) != config.n_layers) {
    wrong.push_back(absl::StrCat(layers.size(), " layers, the model has ", config.n_layers));
  }
  for (int64_t layer = 0; layer < config.n_layers && layer < static_cast<int64_t>(layers.size());
       ++layer) {
    check_layer(config, layer, layers[layer], &wrong);
  }
  if (wrong.empty()) return subset;
  return absl::DataLossError(
      absl::StrCat(path, " does not fit the model:\n  ", absl::StrJoin(wrong, "\n  ")));
}

}  // namespace emo
