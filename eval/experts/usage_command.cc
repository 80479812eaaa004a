#include "eval/commands.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/files/output.h"
#include "data/files/safetensors.h"
#include "data/program/exit_code.h"
#include "eval/experts/expert_ranking.h"
#include "eval/loss/calibration_data.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "eval/open/pool_option.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"

namespace emo {
namespace {

struct UsageCommandOptions {
  std::string checkpoint, experts, pool = "trained", output;
  CalibrationOptions calibration;
  std::vector<std::string> labels;
  int64_t documents = 0;
  uint64_t seed = 0;
  MeshOptions mesh;
  bool overwrite = false;
  bool json = false;
};

// What is reported of an expert, from the sums.
struct Measure {
  const char* name;
  ExpertNumbers ExpertUsage::*sum;
  double (*divisor)(const ExpertUsage&, size_t layer, size_t expert);
};
constexpr Measure kMeasures[] = {
    {"mean_probability", &ExpertUsage::probability,
     [](const ExpertUsage& u, size_t, size_t) { return u.tokens; }},
    {"selection_share", &ExpertUsage::selections,
     [](const ExpertUsage& u, size_t, size_t) { return u.tokens; }},
    {"mean_weight", &ExpertUsage::weight,
     [](const ExpertUsage& u, size_t layer, size_t e) { return u.selections[layer][e]; }},
    {"easy_ep", &ExpertUsage::easy_ep, [](const ExpertUsage&, size_t, size_t) { return 1.0; }},
    {"pool_share", &ExpertUsage::pools,
     [](const ExpertUsage& u, size_t, size_t) { return u.pieces; }},
};

// Every label has tokens, ends of documents if nothing else; an expert that none chose weighs 0.
ExpertNumbers values_of(const ExpertUsage& usage, const Measure& measure) {
  ExpertNumbers values = usage.*(measure.sum);
  for (size_t layer = 0; layer < values.size(); ++layer) {
    for (size_t e = 0; e < values[layer].size(); ++e) {
      const double divisor = measure.divisor(usage, layer, e);
      values[layer][e] = divisor > 0 ? values[layer][e] / divisor : 0;
    }
  }
  return values;
}

struct Groups {
  std::vector<std::string> labels;         // [groups]
  std::vector<int32_t> group_of_document;  // see UsageOptions
};

// A group for each label, of all that the data has where none is named.
absl::StatusOr<Groups> group_documents(const UsageCommandOptions& options,
                                       const TokenDataset& data) {
  absl::Status status = check_labels_differ(options.labels);
  if (!status.ok()) return status;
  Groups groups{options.labels.empty() ? data.info().sources : options.labels, {}};
  groups.group_of_document.assign(count_documents(data), -1);
  for (size_t i = 0; i < groups.labels.size(); ++i) {
    absl::StatusOr<int32_t> source = find_label(data, groups.labels[i]);
    if (!source.ok()) return source.status();
    for (const int64_t document :
         choose_documents(data, {{*source}, options.documents, options.seed})) {
      groups.group_of_document[document] = static_cast<int32_t>(i);
    }
  }
  return groups;
}

OrderedJson report(const UsageCommandOptions& options, const OpenedModel& model,
                   const Groups& groups, const std::vector<ExpertUsage>& usages) {
  OrderedJson labels = OrderedJson::object();
  for (size_t i = 0; i < usages.size(); ++i) {
    OrderedJson numbers = {{"documents", std::llround(usages[i].documents)},
                           {"tokens", std::llround(usages[i].tokens)}};
    for (const Measure& measure : kMeasures) numbers[measure.name] = values_of(usages[i], measure);
    labels[groups.labels[i]] = numbers;
  }
  return {{"checkpoint", model.folder},
          {"identity", model.identity},
          {"data", options.calibration.data},
          {"tasks", options.calibration.tasks},
          {"documents_per_label", options.documents},
          {"seed", options.seed},
          {"pool", options.pool},
          {"labels", labels}};
}

// "<label>/<measure>" f64 [L, E], E the most that a layer has, 0 where a layer has fewer.
absl::Status write_tensors(const std::string& path, const ModelConfig& config, const Groups& groups,
                           const std::vector<ExpertUsage>& usages) {
  const int64_t E = config.routed_experts();
  std::vector<std::vector<double>> memory;
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < usages.size(); ++i) {
    for (const Measure& measure : kMeasures) {
      std::vector<double> table(config.n_layers * E, 0.0);
      const ExpertNumbers values = values_of(usages[i], measure);
      for (size_t layer = 0; layer < values.size(); ++layer) {
        std::copy(values[layer].begin(), values[layer].end(),
                  table.begin() + static_cast<int64_t>(layer) * E);
      }
      memory.push_back(std::move(table));
      tensors.push_back({groups.labels[i] + "/" + measure.name,
                         "F64",
                         {config.n_layers, E},
                         {reinterpret_cast<const char*>(memory.back().data()),
                          memory.back().size() * sizeof(double)}});
    }
  }
  return write_safetensors_output(posix_file_system(), path, tensors, {});
}

// The experts that a label's tokens choose most, of the layer in the middle and of the last.
void print(const ModelConfig& config, const Groups& groups,
           const std::vector<ExpertUsage>& usages) {
  constexpr size_t kShown = 8;
  std::printf("%-26s %10s %10s  the experts that tokens choose most (share of tokens)\n", "label",
              "documents", "tokens");
  for (size_t i = 0; i < usages.size(); ++i) {
    for (const int64_t layer : std::set{config.n_layers / 2, config.n_layers - 1}) {
      if (config.is_dense(layer)) continue;
      const std::vector<double>& counts = usages[i].selections[layer];
      std::vector<size_t> order(counts.size());
      for (size_t e = 0; e < order.size(); ++e) order[e] = e;
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return counts[a] > counts[b]; });
      std::string row;
      for (size_t n = 0; n < std::min(kShown, order.size()); ++n) {
        absl::StrAppend(&row, " ", order[n], " (",
                        std::lround(100 * counts[order[n]] / usages[i].tokens), " %)");
      }
      std::printf("%-26s %10.0f %10.0f  layer %d:%s\n", groups.labels[i].c_str(),
                  usages[i].documents, usages[i].tokens, static_cast<int>(layer), row.c_str());
    }
  }
}

// Beside the file `output`; "" where that is a device, a pipe or what is open, which have no room
// beside them.
absl::StatusOr<std::string> tensors_path(const std::string& output) {
  absl::StatusOr<OutputPlace> place = output_place(output);
  if (!place.ok()) return place.status();
  if (place->kind != OutputPlace::Kind::kFile) return "";
  return std::string(absl::StripSuffix(output, ".json")) + ".safetensors";
}

absl::StatusOr<int> usage(const UsageCommandOptions& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::StatusOr<std::string> tensors = tensors_path(options.output);
  absl::Status status = tensors.status();
  status.Update(check_new_file(options.output, options.overwrite));
  if (tensors.ok()) status.Update(check_new_file(*tensors, options.overwrite));
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  absl::StatusOr<OpenedModel> opened =
      open_model(options.checkpoint, *mesh, options.experts, options.mesh);
  if (!opened.ok()) return opened.status();
  const ModelConfig& config = opened->description.config;
  if (config.moe_layers() == 0) {
    return absl::InvalidArgumentError(options.checkpoint + ": a dense model has no experts");
  }
  absl::StatusOr<CalibrationData> calibration =
      open_calibration(*opened, options.calibration, *mesh);
  if (!calibration.ok()) return calibration.status();
  const TokenDataset& data = calibration->data;
  absl::StatusOr<Groups> groups = group_documents(options, data);
  if (!groups.ok()) return groups.status();

  UsageOptions measured;
  measured.sequence_length = opened->description.max_positions;
  measured.group_of_document = groups->group_of_document;
  measured.groups = static_cast<int64_t>(groups->labels.size());
  measured.easy_ep = true;
  measured.seed = options.seed;
  measured.pool = opened->description.contract.pool;
  measured.pool_draw = opened->description.contract.pool_draw;
  if (options.pool != "trained") {
    absl::StatusOr<PoolPolicy> pool = parse_pool(options.pool, config.routed_top_k());
    if (!pool.ok()) return pool.status();
    measured.pool = *pool;
  }
  const std::unique_ptr<Inference> inference = open_inference(*opened, *mesh);
  absl::StatusOr<std::vector<ExpertUsage>> usages = measure_usage(inference.get(), data, measured);
  if (!usages.ok()) return usages.status();
  const OrderedJson json = report(options, *opened, *groups, *usages);
  if (mesh->is_first()) {
    if (!tensors->empty()) status = write_tensors(*tensors, config, *groups, *usages);
    if (status.ok()) {
      status = write_file_durably(posix_file_system(), options.output, to_text(json));
    }
  }
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  if (mesh->is_first() && options.json) std::printf("%s", to_text(json).c_str());
  if (mesh->is_first() && !options.json) print(config, *groups, *usages);
  return kExitDone;
}

}  // namespace

Command experts_usage_command() {
  auto options = std::make_shared<UsageCommandOptions>();
  Command command;
  command.name = "experts usage";
  command.summary = "How much each label's documents use each expert: all measures from one pass";
  command.options.add("CHECKPOINT", &options->checkpoint, kModelHelp).required();
  add_subset_option(&command.options, &options->experts);
  add_calibration_options(&command.options, &options->calibration);
  command.options.add("--label", &options->labels, "source labels; none: each that the data has")
      .commas();
  command.options
      .add("--documents", &options->documents,
           "how many documents of each label, drawn at random; 0: all")
      .range(0, 1LL << 40)
      .show_default();
  command.options
      .add("--pool", &options->pool,
           "pools whose members are counted (the pass itself has none): trained (as the "
           "model's contract says), none, N or MIN-MAX")
      .show_default();
  command.options.add("--seed", &options->seed, "of the draw of documents and of pool sizes")
      .show_default();
  command.options
      .add("--output", &options->output,
           "USAGE.json to write; the same numbers as tensors go into USAGE.safetensors, but beside "
           "no device or pipe")
      .required();
  command.options.add("--overwrite", &options->overwrite, "replace the output");
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--json", &options->json, "the JSON on standard output instead of the table");
  command.footer =
      "Example: emo experts usage runs/quickstart/emo\n"
      "         --data runs/quickstart/data/validation --documents 100 --output usage.json\n"
      "For each label, layer and expert: mean_probability (of the router's softmax), "
      "selection_share\n"
      "(of tokens that choose the expert), mean_weight (over those), easy_ep, pool_share (of\n"
      "documents in whose pool it would be).";
  command.run = [options] { return usage(*options); };
  return command;
}

}  // namespace emo
