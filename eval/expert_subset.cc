#include "eval/expert_subset.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/random_bits.h"

namespace emo {

int64_t experts_of_fraction(const ModelConfig& config, double fraction) {
  return std::llround(fraction * static_cast<double>(config.num_experts));
}

absl::Status check_keep(const ModelConfig& config, int64_t keep) {
  if (keep > config.num_shared_experts && keep <= config.num_experts) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("keep ", keep, " experts of ", config.num_experts, ", of which ",
                   config.num_shared_experts, " are shared: from ", config.num_shared_experts + 1,
                   " to ", config.num_experts, " are possible"));
}

std::vector<std::vector<int64_t>> keep_largest(const ModelConfig& config,
                                               const std::vector<std::vector<double>>& scores,
                                               int64_t keep) {
  std::vector<std::vector<int64_t>> kept(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    std::vector<int64_t> experts(config.routed_experts());
    std::iota(experts.begin(), experts.end(), 0);
    const std::vector<double>& score = scores[layer];
    std::stable_sort(experts.begin(), experts.end(),
                     [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    experts.resize(keep - config.num_shared_experts);
    std::sort(experts.begin(), experts.end());
    for (int64_t e = config.routed_experts(); e < config.num_experts; ++e) experts.push_back(e);
    kept[layer] = experts;
  }
  return kept;
}

std::vector<std::vector<double>> random_scores(const ModelConfig& config, uint64_t seed) {
  std::vector<std::vector<double>> scores(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (int64_t e = 0; e < config.routed_experts(); ++e) {
      scores[layer].push_back(static_cast<double>(
          random_bits(seed, static_cast<uint64_t>(layer), static_cast<uint64_t>(e)) >> 11));
    }
  }
  return scores;
}

std::vector<ExpertSubset> to_subsets(const ModelConfig& config,
                                     const std::vector<std::vector<int64_t>>& kept,
                                     bool full_weights) {
  std::vector<ExpertSubset> subsets(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    subsets[layer].full_weights = full_weights;
    subsets[layer].kept.assign(config.routed_experts(), 0);
    for (const int64_t e : kept[layer]) {
      if (e < config.routed_experts()) subsets[layer].kept[e] = 1;
    }
  }
  return subsets;
}

OrderedJson to_json(const SubsetFile& subset) {
  return {{"checkpoint", subset.checkpoint},
          {"method", subset.method},
          {"label", subset.label},
          {"keep", subset.keep},
          {"experts_kept_per_layer", subset.experts_kept_per_layer},
          {"scores", subset.scores}};
}

absl::StatusOr<SubsetFile> read_subset(const std::string& path, const ModelConfig& config) {
  absl::StatusOr<Json> json = read_json_file(path);
  if (!json.ok()) return json.status();
  absl::StatusOr<std::vector<std::vector<int64_t>>> kept =
      json_field<std::vector<std::vector<int64_t>>>(*json, "experts_kept_per_layer", path);
  if (!kept.ok()) return kept.status();
  std::vector<std::string> wrong;
  if (static_cast<int64_t>(kept->size()) != config.n_layers) {
    wrong.push_back(absl::StrCat(kept->size(), " layers, the model has ", config.n_layers));
  }
  for (size_t layer = 0; wrong.empty() && layer < kept->size(); ++layer) {
    const std::vector<int64_t>& experts = (*kept)[layer];
    if (config.is_dense(static_cast<int64_t>(layer))) {
      if (!experts.empty())
        wrong.push_back(absl::StrCat("layer ", layer, " is dense and keeps no experts"));
      continue;
    }
    for (size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] < 0 || experts[i] >= config.num_experts) {
        wrong.push_back(
            absl::StrCat("layer ", layer, ": expert ", experts[i], " of ", config.num_experts));
      } else if (i > 0 && experts[i] <= experts[i - 1]) {
        wrong.push_back(
            absl::StrCat("layer ", layer, ": experts must ascend, ", experts[i], " does not"));
      }
    }
    const auto routed = std::count_if(experts.begin(), experts.end(),
                                      [&](int64_t e) { return e < config.routed_experts(); });
    const auto shared = std::count_if(experts.begin(), experts.end(), [&](int64_t e) {
      return e >= config.routed_experts() && e < config.num_experts;
    });
    if (shared != config.num_shared_experts) {
      wrong.push_back(absl::StrCat("layer ", layer, ": all ", config.num_shared_experts,
                                   " shared experts must be kept"));
    }
    if (routed == 0) wrong.push_back(absl::StrCat("layer ", layer, ": no routed expert is kept"));
  }
  if (!wrong.empty()) {
    return absl::DataLossError(
        absl::StrCat(path, " does not fit the model:\n  ", absl::StrJoin(wrong, "\n  ")));
  }
  SubsetFile subset;
  for (const auto& [key, text] :
       {std::pair<const char*, std::string*>{"checkpoint", &subset.checkpoint},
        {"method", &subset.method},
        {"label", &subset.label}}) {
    absl::StatusOr<std::string> read = json_field_or<std::string>(*json, key, "", path);
    if (!read.ok()) return read.status();
    *text = *std::move(read);
  }
  absl::StatusOr<int64_t> keep = json_field_or<int64_t>(*json, "keep", 0, path);
  if (!keep.ok()) return keep.status();
  subset.keep = *keep;
  subset.experts_kept_per_layer = *std::move(kept);
  return subset;
}

}  // namespace emo
