#include "eval/commands.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "data/program/progress.h"
#include "eval/experts/expert_ranking.h"
#include "eval/experts/layerwise_ranking.h"
#include "eval/loss/calibration_data.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"
#include "train/subset/cut_model.h"
#include "train/subset/keep.h"

namespace emo {
namespace {

struct RankOptions {
  std::string checkpoint, experts, method = "layerwise", output, folder;
  CalibrationOptions calibration;
  std::vector<std::string> labels;
  std::vector<std::string> keep;        // see parse_keep()
  std::vector<int64_t> keep_per_layer;  // instead of `keep`
  std::vector<std::string> documents = {"all"};
  uint64_t seed = 0;
  MeshOptions mesh;
  bool overwrite = false;
  bool json = false;
};

// How many experts each layer keeps, and what that is called in file names.
struct Budget {
  std::string name;
  std::vector<int64_t> keep;  // [L]
};

// Documents to rank by: the first `size` that were drawn of a label.
struct Calibration {
  std::string label;               // "" for all labels together
  std::string size;                // "all" or a number
  std::vector<int64_t> documents;  //
};

absl::StatusOr<std::vector<Budget>> budgets_of(const RankOptions& options,
                                               const ModelConfig& config) {
  if (options.keep.empty() == options.keep_per_layer.empty()) {
    return absl::InvalidArgumentError("say either --keep or --keep-per-layer");
  }
  std::vector<Budget> budgets;
  if (!options.keep_per_layer.empty()) budgets.push_back({"variable", options.keep_per_layer});
  absl::StatusOr<std::vector<Keep>> keeps = parse_keeps(options.keep);
  if (!keeps.ok()) return keeps.status();
  for (const Keep& keep : *keeps) {
    const int64_t count = experts_of(keep, config.num_experts);
    absl::Status status = check_keep(config, count);
    if (!status.ok()) return status;
    budgets.push_back({absl::StrCat("keep", count), std::vector<int64_t>(config.n_layers, count)});
  }
  for (const Budget& budget : budgets) {
    absl::Status status = check_keep(config, budget.keep);
    if (!status.ok()) return status;
  }
  return budgets;
}

// Every label with every size.
absl::StatusOr<std::vector<Calibration>> calibrations_of(const RankOptions& options,
                                                         const TokenDataset& data) {
  std::vector<Calibration> calibrations;
  std::vector<std::string> wrong;
  std::vector<std::string> labels = options.labels;
  if (labels.empty()) labels = {""};
  for (const std::string& label : labels) {
    DocumentChoice choice{{}, 0, options.seed};
    if (!label.empty()) {
      absl::StatusOr<int32_t> source = find_label(data, label);
      if (!source.ok()) {
        wrong.emplace_back(source.status().message());
        continue;
      }
      choice.sources = {*source};
    }
    const std::vector<int64_t> drawn = choose_documents(data, choice);
    if (drawn.empty()) wrong.push_back(absl::StrCat(data.folder(), ": no documents to rank by"));
    for (const std::string& size : options.documents) {
      int64_t count = static_cast<int64_t>(drawn.size());
      if (size != "all" && (!absl::SimpleAtoi(size, &count) || count < 1)) {
        wrong.push_back(absl::StrCat("--documents ", size, ": expected numbers from 1, or all"));
      } else if (count > static_cast<int64_t>(drawn.size())) {
        wrong.push_back(absl::StrCat("--documents ", size, ": ", data.folder(), " has ",
                                     drawn.size(),
                                     label.empty() ? "" : " with the label " + label));
      } else {
        calibrations.push_back({label, size, {drawn.begin(), drawn.begin() + count}});
      }
    }
  }
  if (wrong.empty()) return calibrations;
  return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
}

// Collective. The usage of each calibration's documents, from one pass over those of the largest:
// documents are grouped by the smallest calibration that has them, and groups are added up.
absl::StatusOr<std::vector<ExpertUsage>> usages_of(const RankOptions& options,
                                                   const OpenedModel& model, Inference* inference,
                                                   const TokenDataset& data,
                                                   const std::vector<Calibration>& calibrations) {
  UsageOptions usage;
  usage.sequence_length = model.description.max_positions;
  usage.pool = PoolPolicy::none();
  usage.easy_ep = options.method == "easy_ep";
  std::vector<ExpertUsage> usages;
  // Documents of different labels differ; with none named there is one series of sizes.
  std::vector<size_t> by_size(calibrations.size());
  for (size_t i = 0; i < by_size.size(); ++i) by_size[i] = i;
  std::stable_sort(by_size.begin(), by_size.end(), [&](size_t a, size_t b) {
    return calibrations[a].documents.size() < calibrations[b].documents.size();
  });
  usage.groups = static_cast<int64_t>(calibrations.size());
  usage.group_of_document.assign(count_documents(data), -1);
  for (const size_t i : by_size) {
    for (const int64_t document : calibrations[i].documents) {
      int32_t& group = usage.group_of_document[document];
      if (group < 0) group = static_cast<int32_t>(i);
    }
  }
  absl::StatusOr<std::vector<ExpertUsage>> groups = measure_usage(inference, data, usage);
  if (!groups.ok()) return groups.status();
  usages = *groups;
  for (size_t i = 0; i < by_size.size(); ++i) {
    for (size_t smaller = 0; smaller < i; ++smaller) {
      if (calibrations[by_size[smaller]].label != calibrations[by_size[i]].label) continue;
      usages[by_size[i]] = usages[by_size[i]] + (*groups)[by_size[smaller]];
    }
  }
  return usages;
}

// The ids of all documents, by number.
absl::StatusOr<std::vector<std::string>> all_ids(const TokenDataset& data) {
  std::vector<std::string> all;
  for (int64_t shard = 0; shard < data.num_shards(); ++shard) {
    absl::StatusOr<std::vector<std::string>> ids =
        document_ids(data.folder(), data.info().shards[shard]);
    if (!ids.ok()) return ids.status();
    all.insert(all.end(), ids->begin(), ids->end());
  }
  return all;
}

struct NamedSubset {
  std::string path;
  SubsetFile file;
};

// Collective. A subset for each calibration and budget.
absl::StatusOr<std::vector<NamedSubset>> rank_all(const RankOptions& options,
                                                  const OpenedModel& model, const Mesh& mesh,
                                                  const TokenDataset& data,
                                                  const std::vector<Calibration>& calibrations,
                                                  const std::vector<Budget>& budgets) {
  absl::StatusOr<std::vector<std::string>> ids = all_ids(data);
  absl::Status status = agree(*mesh.world, ids.status());
  if (!status.ok()) return status;
  const ModelConfig& config = model.description.config;
  const std::unique_ptr<Inference> inference = open_inference(model, mesh);
  std::vector<ExpertUsage> usages;
  if (options.method == "router" || options.method == "easy_ep") {
    absl::StatusOr<std::vector<ExpertUsage>> measured =
        usages_of(options, model, inference.get(), data, calibrations);
    if (!measured.ok()) return measured.status();
    usages = *std::move(measured);
  }
  std::vector<NamedSubset> subsets;
  for (size_t i = 0; i < calibrations.size(); ++i) {
    const Calibration& calibration = calibrations[i];
    SubsetFile subset;
    subset.checkpoint = model.folder;
    subset.identity = model.identity;
    subset.method = options.method;
    subset.seed = options.seed;
    if (!calibration.label.empty()) subset.labels = {calibration.label};
    for (const int64_t document : calibration.documents) {
      subset.calibration.push_back((*ids)[document]);
    }
    for (const DocumentPiece& piece :
         cut_documents(data, calibration.documents, model.description.max_positions)) {
      subset.calibration_tokens += static_cast<double>(piece.length());
    }
    for (const Budget& budget : budgets) {
      if (options.method == "layerwise") {
        absl::StatusOr<LayerwiseRanking> ranking =
            rank_layerwise(inference.get(), data, calibration.documents,
                           model.description.max_positions, budget.keep);
        if (!ranking.ok()) return ranking.status();
        subset.scores = ranking->scores;
        subset.experts_kept_per_layer = ranking->kept;
      } else {
        subset.scores = options.method == "random"   ? random_scores(config, options.seed)
                        : options.method == "router" ? router_scores(usages[i])
                                                     : usages[i].easy_ep;
        subset.experts_kept_per_layer = keep_largest(config, subset.scores, budget.keep);
      }
      const std::string name = absl::StrCat(
          calibration.label.empty() ? "all" : absl::StrReplaceAll(calibration.label, {{"/", "_"}}),
          "-", options.method, "-", budget.name, "-documents", calibration.size, ".json");
      subsets.push_back(
          {options.folder.empty() ? options.output : options.folder + "/" + name, subset});
    }
  }
  return subsets;
}

absl::Status write_all(const RankOptions& options, const std::vector<NamedSubset>& subsets) {
  absl::Status status;
  if (!options.folder.empty()) status = posix_file_system().make_directories(options.folder);
  for (const NamedSubset& subset : subsets) {
    if (status.ok()) status = check_new_file(subset.path, options.overwrite);
    if (!status.ok()) return status;
    status = write_file_durably(posix_file_system(), subset.path, to_text(to_json(subset.file)));
  }
  return status;
}

void print(const std::vector<NamedSubset>& subsets, bool json) {
  OrderedJson list = OrderedJson::array();
  for (const NamedSubset& subset : subsets) {
    const KeptExperts& kept = subset.file.experts_kept_per_layer;
    size_t most = 0;
    for (const std::vector<int64_t>& layer : kept) most = std::max(most, layer.size());
    list.push_back({{"file", subset.path},
                    {"keep", most},
                    {"labels", subset.file.labels},
                    {"documents", subset.file.calibration.size()},
                    {"tokens", subset.file.calibration_tokens}});
    std::fprintf(
        stderr, "emo: %s: at most %zu experts a layer, chosen on %zu documents (%.0f tokens)\n",
        subset.path.c_str(), most, subset.file.calibration.size(), subset.file.calibration_tokens);
  }
  if (json) std::printf("%s", to_text({{"subsets", list}}).c_str());
}

absl::StatusOr<int> rank(const RankOptions& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::Status status = check_labels_differ(options.labels);
  if (!status.ok()) return status;
  const size_t asked = std::max<size_t>(1, options.labels.size()) * options.documents.size() *
                       std::max<size_t>(1, options.keep.size());
  if (options.output.empty() == options.folder.empty() || (asked > 1 && options.folder.empty())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "say --output FILE for one subset, --output-folder DIR for several; these are ", asked));
  }
  if (!options.output.empty()) {
    status = agree(*mesh->world, check_new_file(options.output, options.overwrite));
    if (!status.ok()) return status;
  }
  absl::StatusOr<OpenedModel> opened =
      open_model(options.checkpoint, *mesh, options.experts, options.mesh);
  if (!opened.ok()) return opened.status();
  const ModelConfig& config = opened->description.config;
  if (config.moe_layers() == 0) {
    return absl::InvalidArgumentError(options.checkpoint +
                                      ": a dense model has no experts to rank");
  }
  absl::StatusOr<std::vector<Budget>> budgets = budgets_of(options, config);
  if (!budgets.ok()) return budgets.status();
  absl::StatusOr<CalibrationData> measured = open_calibration(*opened, options.calibration, *mesh);
  if (!measured.ok()) return measured.status();
  const TokenDataset& data = measured->data;
  absl::StatusOr<std::vector<Calibration>> calibrations = calibrations_of(options, data);
  if (!calibrations.ok()) return calibrations.status();
  absl::StatusOr<std::vector<NamedSubset>> subsets =
      rank_all(options, *opened, *mesh, data, *calibrations, *budgets);
  if (!subsets.ok()) return subsets.status();
  if (mesh->is_first()) status = write_all(options, *subsets);
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  if (mesh->is_first()) print(*subsets, options.json);
  return kExitDone;
}

}  // namespace

Command experts_rank_command() {
  auto options = std::make_shared<RankOptions>();
  Command command;
  command.name = "experts rank";
  command.summary = "Choose the experts that documents use most";
  command.options.add("CHECKPOINT", &options->checkpoint, kModelHelp).required();
  add_subset_option(&command.options, &options->experts);
  add_calibration_options(&command.options, &options->calibration);
  command.options
      .add("--label", &options->labels,
           "source labels of the documents, a subset for each; none: all documents together")
      .commas();
  command.options
      .add("--method", &options->method,
           "layerwise: the router's mean probability, layer after layer, the earlier ones cut "
           "already; router: the same on the whole model, one pass; easy_ep: weight times "
           "length of what an expert adds (arXiv 2504.06792); random: by the seed")
      .one_of(ranking_methods())
      .show_default();
  command.options.add("--keep", &options->keep, kKeepHelp).commas();
  command.options
      .add("--keep-per-layer", &options->keep_per_layer,
           "a number for each layer, instead of --keep")
      .commas();
  command.options
      .add("--documents", &options->documents,
           "how many documents of each label, drawn at random, as in 1,5,10,100,all: a subset "
           "for each; a smaller number's are among a larger one's")
      .commas()
      .show_default();
  command.options.add("--seed", &options->seed, "of the draw of documents, and of method random")
      .show_default();
  command.options.add("--output", &options->output, "SUBSET.json to write, where it is one");
  command.options.add("--output-folder", &options->folder,
                      "folder for LABEL-METHOD-keepN-documentsM.json, where they are several");
  command.options.add("--overwrite", &options->overwrite, "replace the output");
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--json", &options->json, "one JSON object that lists the subsets");
  command.footer =
      "Example: emo experts rank runs/quickstart/emo --data "
      "runs/quickstart/data/validation\n"
      "         --label scripture --keep 0.25 --output scripture.json\n"
      "Then: emo eval runs/quickstart/emo --experts scripture.json --data ...\n"
      "      emo experts extract runs/quickstart/emo scripture.json OUT";
  command.run = [options] { return rank(*options); };
  return command;
}

}  // namespace emo
