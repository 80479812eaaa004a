#include "eval/eval_command.h"

#include <cstdio>
#include <memory>
#include <string>

#include "data/exit_code.h"
#include "data/json.h"
#include "eval/mesh_options.h"
#include "eval/open_model.h"
#include "eval/perplexity.h"
#include "eval/pool_option.h"
#include "train/agreement.h"
#include "train/expert_subset.h"

namespace emo {
namespace {

struct Options {
  std::string checkpoint, data, experts;
  std::string pool = "none";
  MeshOptions mesh;
  bool full_weights = false;
  bool routed_off = false;
  bool json = false;
};

OrderedJson loss_json(const SourceLoss& loss) {
  return {{"loss", loss.mean()},
          {"perplexity", loss.perplexity()},
          {"bits_per_byte", loss.bits_per_byte()},
          {"documents", loss.documents},
          {"predicted_tokens", loss.predicted},
          {"bytes", loss.bytes}};
}

void print_row(const std::string& label, const SourceLoss& loss) {
  std::printf("%-28s %9.0f %11.0f %8.4f %11.3f %9.4f\n", label.c_str(), loss.documents,
              loss.predicted, loss.mean(), loss.perplexity(), loss.bits_per_byte());
}

absl::StatusOr<int> run(const Options& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  // Weights as in the full model need the routers of all experts.
  const bool masked = options.full_weights && !options.experts.empty();
  absl::StatusOr<OpenedModel> opened =
      open_model(options.checkpoint, *mesh, masked ? "" : options.experts);
  if (!opened.ok()) return opened.status();
  const ModelDescription& description = opened->description;
  EvalOptions eval;
  eval.sequence_length = description.max_positions;
  eval.routed_off = options.routed_off;
  absl::StatusOr<PoolPolicy> pool = parse_pool(options.pool, description.config.routed_top_k());
  absl::Status status = pool.status();
  if (status.ok()) eval.pool = *pool;
  if (status.ok() && masked) {
    absl::StatusOr<SubsetFile> subset =
        read_subset(options.experts, description.config, opened->identity);
    status = subset.status();
    if (subset.ok()) {
      eval.subsets = to_subsets(description.config, subset->experts_kept_per_layer,
                                /*full_weights=*/true);
    }
  }
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  absl::StatusOr<TokenDataset> data = open_data_for(*opened, options.data, *mesh);
  if (!data.ok()) return data.status();
  PassMemory memory;
  absl::StatusOr<EvalResult> result = evaluate(*opened->model, *mesh, *data, eval, &memory);
  if (!result.ok()) return result.status();
  if (!mesh->is_first()) return kExitDone;

  const SourceLoss sum = total(result->sources);
  const std::vector<std::string>& labels = data->info().sources;
  if (options.json) {
    OrderedJson json = loss_json(sum);
    json["checkpoint"] = options.checkpoint;
    json["data"] = options.data;
    json["pool"] = options.pool;
    json["experts"] = options.experts.empty() ? OrderedJson(nullptr) : OrderedJson(options.experts);
    json["sources"] = OrderedJson::object();
    for (size_t i = 0; i < labels.size(); ++i)
      json["sources"][labels[i]] = loss_json(result->sources[i]);
    std::printf("%s", to_text(json).c_str());
    return kExitDone;
  }
  std::printf("%-28s %9s %11s %8s %11s %9s\n", "source", "documents", "predicted", "loss",
              "perplexity", "bits/byte");
  for (size_t i = 0; i < labels.size(); ++i) print_row(labels[i], result->sources[i]);
  print_row("all", sum);
  return kExitDone;
}

}  // namespace

Command eval_command(CLI::App& parent) {
  auto options = std::make_shared<Options>();
  CLI::App* app =
      parent.add_subcommand("eval", "Loss, perplexity and bits per byte, for each source label");
  app->add_option("CHECKPOINT", options->checkpoint, "model folder")->required();
  add_subset_option(app, &options->experts);
  app->add_option("--data", options->data, "folder that emo prepare wrote")->required();
  app->add_flag("--full-weights", options->full_weights,
                "with --experts: weights as in the full model, not a softmax over the kept");
  app->add_flag("--no-routed-experts", options->routed_off, "all routed experts off");
  app->add_option("--pool", options->pool, "document pools: none, N or MIN-MAX")
      ->capture_default_str();
  add_mesh_options(app, &options->mesh);
  app->add_flag("--json", options->json, "one JSON object on standard output");
  app->footer(
      "Example: emo eval runs/quickstart/emo/step-0001000 --data runs/quickstart/data/test --json");
  return {app, [options] { return run(*options); }};
}

}  // namespace emo
