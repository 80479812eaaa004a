#include "eval/commands.h"

#include <ATen/ops/from_blob.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/order/random_bits.h"
#include "data/program/exit_code.h"
#include "eval/experts/expert_placement.h"
#include "eval/experts/expert_ranking.h"
#include "eval/loss/perplexity.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "eval/open/pool_option.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"
#include "train/subset/expert_order.h"

namespace emo {
namespace {

struct PlaceOptions {
  std::string checkpoint, experts, data, output;
  std::vector<std::string> labels;
  std::string pool = "trained";
  int64_t ranks = 0;
  int64_t documents = 500;
  uint64_t seed = 0;
  MeshOptions mesh;
  bool overwrite = false;
  bool json = false;
};

// What tokens chose in one layer: pairs of experts in half of the documents, drawn at random, and
// the choices of the others, on which placements are compared.
struct LayerChoices {
  ExpertPairs pairs;
  std::vector<at::Tensor> held_out;  // i32 [tokens of a document, K] each
};

// One layer's placements.
struct Comparison {
  std::vector<int32_t> order;
  PlacementCost before, after;
};

absl::Status check(const PlaceOptions& options, const ModelConfig& config) {
  if (config.moe_layers() == 0) {
    return absl::InvalidArgumentError(options.checkpoint +
                                      ": a dense model has no experts to place");
  }
  if (options.ranks >= 2 && options.ranks <= config.routed_experts()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--ranks ", options.ranks, ": from 2 to ",
                                                 config.routed_experts(),
                                                 " ranks can share the routed experts"));
}

absl::StatusOr<EvalOptions> eval_options(const PlaceOptions& options, const OpenedModel& opened,
                                         const TokenDataset& data) {
  EvalOptions eval;
  eval.sequence_length = opened.description.max_positions;
  eval.pass.seed = options.seed;
  DocumentChoice choice{{}, options.documents, options.seed};
  for (const std::string& label : options.labels) {
    absl::StatusOr<int32_t> source = find_label(data, label);
    if (!source.ok()) return source.status();
    choice.sources.push_back(*source);
  }
  eval.documents = choose_documents(data, choice);
  if (options.pool == "trained") return eval;  // the contract's
  absl::StatusOr<PoolPolicy> pool =
      parse_pool(options.pool, opened.description.config.routed_top_k());
  if (!pool.ok()) return pool.status();
  eval.pass.pool = *pool;
  return eval;
}

void collect(uint64_t seed, const Slice& batch, const at::Tensor& choices, LayerChoices* seen) {
  const int64_t documents = batch.routing_ends.numel() - 1;
  const auto* ends = batch.routing_ends.const_data_ptr<int32_t>();
  const auto* numbers = batch.sequence_index.const_data_ptr<int64_t>();
  for (int64_t d = 0; d < documents; ++d) {
    if (random_bits(seed, 1, static_cast<uint64_t>(numbers[d])) % 2 == 0) {
      add_choices(choices, ends[d], ends[d + 1], &seen->pairs);
    } else {
      seen->held_out.push_back(choices.slice(0, ends[d], ends[d + 1]).clone());
    }
  }
}

// Collective.
void sum_over_ranks(Communicator& world, double* numbers, size_t count) {
  world.all_reduce(at::from_blob(numbers, {static_cast<int64_t>(count)}, at::kDouble),
                   ReduceOp::kSum);
}

// Collective.
PlacementCost cost_of(Communicator& world, const ExpertPlacement& placement,
                      const LayerChoices& choices) {
  PlacementCost cost;
  cost.load.resize(placement.ranks, 0.0);
  for (const at::Tensor& document : choices.held_out) {
    add_cost(placement, document, 0, document.size(0), &cost);
  }
  sum_over_ranks(world, &cost.tokens, 1);
  sum_over_ranks(world, &cost.ranks, 1);
  sum_over_ranks(world, cost.load.data(), cost.load.size());
  return cost;
}

// Collective.
Comparison place_layer(Communicator& world, const ExpertPlacement& here,
                       const PlaceOptions& options, int64_t layer, LayerChoices* choices) {
  sum_over_ranks(world, choices->pairs.counts.data(), choices->pairs.counts.size());
  ExpertPlacement placement{here.experts, options.ranks, here.order};
  Comparison result;
  result.before = cost_of(world, placement, *choices);
  result.order = placement.order =
      group_experts(choices->pairs, options.ranks, options.seed + static_cast<uint64_t>(layer));
  result.after = cost_of(world, placement, *choices);
  return result;
}

OrderedJson cost_json(const PlacementCost& cost) {
  return {{"copies_per_token", cost.copies_per_token()},
          {"load_max_over_mean", cost.load_max_over_mean()}};
}

OrderedJson report(const PlaceOptions& options, const OpenedModel& model,
                   const std::vector<Comparison>& layers) {
  OrderedJson rows = OrderedJson::array();
  ExpertOrder order;
  double before = 0, after = 0, moe_layers = 0, tokens = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Comparison& compared = layers[layer];
    order.push_back(compared.order);
    if (compared.order.empty()) continue;
    before += compared.before.copies_per_token();
    after += compared.after.copies_per_token();
    moe_layers += 1;
    tokens = compared.before.tokens;
    rows.push_back({{"layer", layer},
                    {"before", cost_json(compared.before)},
                    {"after", cost_json(compared.after)}});
  }
  OrderedJson json = {{"checkpoint", model.folder},
                      {"ranks", options.ranks},
                      {"pool", options.pool},
                      {"compared_on_tokens", tokens},
                      {"copies_per_token_before", before / moe_layers},
                      {"copies_per_token_after", after / moe_layers},
                      {"layers", rows}};
  json["order"] = to_json(order)["order"];
  return json;
}

void print(const OrderedJson& json) {
  const auto number = [](const OrderedJson& row, const char* when, const char* what) {
    return row[when][what].get<double>();
  };
  std::printf("%d ranks, compared on %.0f tokens of documents that were not used to place\n",
              json["ranks"].get<int>(), json["compared_on_tokens"].get<double>());
  std::printf("%5s %24s %24s\n%5s %12s %11s %12s %11s\n", "", "copies per token",
              "busiest rank over mean", "layer", "before", "after", "before", "after");
  for (const OrderedJson& row : json["layers"]) {
    std::printf("%5d %12.3f %11.3f %12.2f %11.2f\n", row["layer"].get<int>(),
                number(row, "before", "copies_per_token"), number(row, "after", "copies_per_token"),
                number(row, "before", "load_max_over_mean"),
                number(row, "after", "load_max_over_mean"));
  }
  std::printf("%5s %12.3f %11.3f\n", "mean", json["copies_per_token_before"].get<double>(),
              json["copies_per_token_after"].get<double>());
}

absl::StatusOr<int> place(const PlaceOptions& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::Status status = agree(*mesh->world, check_new_file(options.output, options.overwrite));
  if (!status.ok()) return status;
  absl::StatusOr<OpenedModel> opened =
      open_model(options.checkpoint, *mesh, options.experts, options.mesh);
  if (!opened.ok()) return opened.status();
  const ModelConfig& config = opened->description.config;
  status = check(options, config);
  if (!status.ok()) return status;
  absl::StatusOr<TokenDataset> data = open_data_for(*opened, options.data, *mesh);
  if (!data.ok()) return data.status();
  absl::StatusOr<EvalOptions> eval = eval_options(options, *opened, *data);
  if (!eval.ok()) return eval.status();

  std::vector<LayerChoices> choices;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    choices.push_back({make_expert_pairs(config.routed_experts(layer)), {}});
  }
  eval->observe = [&](const Slice& batch, const BlockView& block) {
    if (!block.experts.defined()) return;
    collect(options.seed, batch, block.experts, &choices[block.layer]);
  };
  const std::unique_ptr<Inference> inference = open_inference(*opened, *mesh);
  absl::StatusOr<EvalResult> evaluated = evaluate(inference.get(), *data, *eval);
  if (!evaluated.ok()) return evaluated.status();
  std::vector<Comparison> layers(config.n_layers);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (config.is_dense(layer)) continue;
    layers[layer] = place_layer(*mesh->world, opened->model->layout.placements[layer], options,
                                layer, &choices[layer]);
  }
  const OrderedJson json = report(options, *opened, layers);
  if (json["compared_on_tokens"].get<double>() == 0) {
    return absl::DataLossError(options.data +
                               ": too few documents; some are used to place, others to compare");
  }
  if (mesh->is_first()) {
    status = write_file_durably(posix_file_system(), options.output, to_text(json));
  }
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  if (mesh->is_first() && options.json) std::printf("%s", to_text(json).c_str());
  if (mesh->is_first() && !options.json) print(json);
  return kExitDone;
}

}  // namespace

Command experts_place_command() {
  auto options = std::make_shared<PlaceOptions>();
  Command command;
  command.name = "experts place";
  command.summary = "Choose which experts share a rank: those that tokens use together";
  command.options.add("CHECKPOINT", &options->checkpoint, kModelHelp).required();
  add_subset_option(&command.options, &options->experts);
  command.options.add("--data", &options->data, "folder that emo prepare wrote").required();
  command.options.add("--ranks", &options->ranks, "ranks that will share the experts (parallel.ep)")
      .required();
  command.options
      .add("--output", &options->output,
           "PLACEMENT.json to write; train with parallel.placement=PLACEMENT.json")
      .required();
  command.options.add("--label", &options->labels, "only documents with one of these source labels")
      .commas();
  command.options
      .add("--documents", &options->documents,
           "how many documents, drawn at random; half of them to place, half to compare; "
           "0: all")
      .range(0, 1LL << 40)
      .show_default();
  command.options
      .add("--pool", &options->pool,
           "document pools: trained (as the model's contract says), none, N or MIN-MAX")
      .show_default();
  command.options.add("--seed", &options->seed, "of the documents, pool sizes and search")
      .show_default();
  command.options.add("--overwrite", &options->overwrite, "replace the output");
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--json", &options->json,
                      "one JSON object on standard output instead of the table");
  command.footer =
      "Example: emo experts place runs/quickstart/emo --data\n"
      "         runs/quickstart/data/validation --ranks 4 --output placement.json\n"
      "Then train with parallel.placement=placement.json: checkpoints carry it, results stay the\n"
      "same, fewer copies of tokens travel.";
  command.run = [options] { return place(*options); };
  return command;
}

}  // namespace emo
