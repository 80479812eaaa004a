#include "eval/commands.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "eval/open/mesh_options.h"
#include "train/checkpoint/find_model.h"
#include "train/model_folder/hugging_face.h"
#include "train/subset/expert_subset.h"

namespace emo {
namespace {

struct CompareOptions {
  std::string checkpoint;
  std::vector<std::string> subsets;
  bool json = false;
};

// The routed experts that a layer keeps: shared ones are in every subset and would only blur.
std::vector<int64_t> routed(const ModelConfig& config, int64_t layer,
                            const std::vector<int64_t>& kept) {
  std::vector<int64_t> experts;
  for (const int64_t e : kept) {
    if (e < config.routed_experts(layer)) experts.push_back(e);
  }
  return experts;
}

// |a and b| / |a or b| of a layer's routed experts.
double jaccard(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  std::vector<int64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  const auto shared = static_cast<double>(both.size());
  return shared / (static_cast<double>(a.size() + b.size()) - shared);
}

std::vector<double> by_layer(const ModelConfig& config, const KeptExperts& a,
                             const KeptExperts& b) {
  std::vector<double> overlaps;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    overlaps.push_back(jaccard(routed(config, layer, a[layer]), routed(config, layer, b[layer])));
  }
  return overlaps;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// What two random choices of these sizes share, about: k1 k2 / E of k1 + k2 - that.
double by_chance(const ModelConfig& config, const KeptExperts& a, const KeptExperts& b) {
  std::vector<double> overlaps;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    const auto first = static_cast<double>(routed(config, layer, a[layer]).size());
    const auto second = static_cast<double>(routed(config, layer, b[layer]).size());
    const double both = first * second / static_cast<double>(config.routed_experts(layer));
    overlaps.push_back(both / (first + second - both));
  }
  return mean(overlaps);
}

absl::StatusOr<int> compare(const CompareOptions& options) {
  absl::StatusOr<std::string> folder = find_model(options.checkpoint);
  if (!folder.ok()) return folder.status();
  absl::StatusOr<ModelDescription> model = read_config_json(*folder + "/config.json");
  if (!model.ok()) return model.status();
  const ModelConfig& config = model->config;
  if (config.moe_layers() == 0) {
    return absl::InvalidArgumentError(options.checkpoint + ": a dense model has no experts");
  }
  std::vector<SubsetFile> subsets;
  std::vector<std::string> wrong;
  bool only_missing = true;
  for (const std::string& path : options.subsets) {
    absl::StatusOr<SubsetFile> subset = read_subset(path, config, "");
    if (subset.ok()) {
      subsets.push_back(*std::move(subset));
    } else {
      wrong.emplace_back(subset.status().message());
      only_missing = only_missing && absl::IsNotFound(subset.status());
    }
  }
  if (!wrong.empty()) {
    const std::string all = absl::StrJoin(wrong, "\n");
    return only_missing ? absl::NotFoundError(all) : absl::DataLossError(all);
  }
  OrderedJson pairs = OrderedJson::array();
  for (size_t a = 0; a < subsets.size(); ++a) {
    for (size_t b = a + 1; b < subsets.size(); ++b) {
      const KeptExperts& first = subsets[a].experts_kept_per_layer;
      const KeptExperts& second = subsets[b].experts_kept_per_layer;
      const std::vector<double> layers = by_layer(config, first, second);
      pairs.push_back({{"a", options.subsets[a]},
                       {"b", options.subsets[b]},
                       {"same_model", subsets[a].identity == subsets[b].identity},
                       {"jaccard", mean(layers)},
                       {"by_chance", by_chance(config, first, second)},
                       {"layers", layers}});
    }
  }
  if (options.json) {
    std::printf("%s", to_text({{"pairs", pairs}}).c_str());
    return kExitDone;
  }
  std::printf("%8s %8s %8s %8s  subsets\n", "overlap", "chance", "least", "most");
  for (const OrderedJson& pair : pairs) {
    const auto layers = pair["layers"].get<std::vector<double>>();
    std::printf("%8.3f %8.3f %8.3f %8.3f  %s  %s%s\n", pair["jaccard"].get<double>(),
                pair["by_chance"].get<double>(), *std::min_element(layers.begin(), layers.end()),
                *std::max_element(layers.begin(), layers.end()),
                pair["a"].get<std::string>().c_str(), pair["b"].get<std::string>().c_str(),
                pair["same_model"].get<bool>() ? "" : "  (of different models)");
  }
  return kExitDone;
}

}  // namespace

Command experts_compare_command() {
  auto options = std::make_shared<CompareOptions>();
  Command command;
  command.name = "experts compare";
  command.summary = "How much subsets of experts have in common: Jaccard overlap of routed experts";
  command.options
      .add("CHECKPOINT", &options->checkpoint,
           "model folder of the subsets' sizes, or a run's folder")
      .required();
  command.options.add("SUBSET", &options->subsets, "two SUBSET.json or more")
      .required()
      .at_least_values(2);
  command.options.add("--json", &options->json,
                      "one JSON object on standard output instead of the table");
  command.footer =
      "Example: emo experts compare runs/quickstart/emo subsets/*.json\n"
      "overlap: mean over layers; chance: of two random choices of these sizes, about; least and\n"
      "most: of one layer. Subsets may be of other domains, sizes, seeds, or checkpoints of a "
      "run.";
  command.run = [options] { return on_first_rank([&] { return compare(*options); }); };
  return command;
}

}  // namespace emo
