#include "train/run_start.h"

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/json.h"
#include "data/rows/data_record.h"
#include "parallel/agreement.h"
#include "train/subset/cut_model.h"
#include "train/subset/expert_order.h"
#include "train/subset/pruning_metadata.h"

namespace emo {
namespace {

// What of the data is not as the run of `folder` has seen it.
std::vector<std::string> data_changes(const std::string& folder, const ChunkSource& source,
                                      const TrainingPosition& position) {
  if (source.matches(position.data_fingerprint)) return {};
  std::vector<std::string> lines = {"data: its contents are not those that the run has seen"};
  const absl::StatusOr<DataRecord> record = read_data_record(folder);
  if (!record.ok()) return lines;  // of an older version
  for (const std::string& line : changes_since(*record, source)) lines.push_back("  " + line);
  return lines;
}

absl::Status check_resumable(const std::string& folder, const RunConfig& config,
                             const ChunkSource& source, const TrainingPosition& position) {
  std::vector<std::string> differences = differences_that_matter(position.config, to_pairs(config));
  for (std::string& line : data_changes(folder, source, position)) {
    differences.push_back(std::move(line));
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      folder, ": the run cannot go on with this config, which differs where it matters:\n  ",
      absl::StrJoin(differences, "\n  "),
      "\nGo back to the old values, or start a new run in another run.folder (run.start_from takes "
      "over weights)."));
}

absl::Status check_contract(const std::string& folder, const RunConfig& config,
                            const TrainingPosition& position) {
  if (config.run.change_contract) return absl::OkStatus();
  std::vector<std::string> differences;
  for (const std::string& line : differences_that_matter(position.config, to_pairs(config))) {
    if (absl::StartsWith(line, "routing.")) differences.push_back(line);
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(folder, ": another routing contract:\n  ", absl::StrJoin(differences, "\n  "),
                   "\nSet run.change_contract=true if that is meant."));
}

// What another program wrote does not say what it read.
bool knows_data(const TrainingPosition& position) {
  return !position.data_fingerprint.empty() && !position.config.empty();
}

// Of an import all that is known is how its loader went through the data.
absl::Status check_loader(const std::string& folder, const RunConfig& config) {
  const std::string path = folder + "/state.json";
  absl::StatusOr<Json> state = read_json_file(path);
  if (!state.ok()) return state.status();
  if (!state->contains("reference_loader")) return absl::OkStatus();
  absl::StatusOr<uint64_t> seed = json_field<uint64_t>((*state)["reference_loader"], "seed", path);
  if (!seed.ok()) return seed.status();
  std::vector<std::string> differences;
  if (config.data.order != Order::kReference) {
    differences.push_back(absl::StrCat("data.order: was reference, is ",
                                       order_names()[static_cast<int>(config.data.order)]));
  }
  if (config.data_seed() != *seed) {
    differences.push_back(absl::StrCat("data.seed: was ", *seed, ", is ", config.data_seed()));
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      folder, ": run.take all goes on in its data, and this is another way through it:\n  ",
      absl::StrJoin(differences, "\n  "), "\nSet run.change_data=true if that is meant."));
}

// Going on at a position in data needs the same data, in the same order.
absl::Status check_data(const std::string& folder, const RunConfig& config,
                        const ChunkSource& source, const TrainingPosition& position) {
  if (config.run.change_data) return absl::OkStatus();
  if (!knows_data(position)) return check_loader(folder, config);
  std::vector<std::string> differences;
  for (const std::string& line : differences_that_matter(position.config, to_pairs(config))) {
    const bool is_seed = absl::StartsWith(line, "run.seed") && config.data.seed < 0;
    if (absl::StartsWith(line, "data.") || is_seed) differences.push_back(line);
  }
  for (std::string& line : data_changes(folder, source, position)) {
    differences.push_back(std::move(line));
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      folder, ": run.take all goes on in its data, and this is other data:\n  ",
      absl::StrJoin(differences, "\n  "), "\nSet run.change_data=true if that is meant."));
}

// What tensors do not say: a model computed with another of these is another model.
absl::Status check_model(const std::string& folder, const RunConfig& config,
                         const ModelDescription& found) {
  const ModelConfig& a = found.config;
  const ModelConfig& b = config.model;
  std::vector<std::string> differences;
  const auto compare = [&](const char* key, double was, double is) {
    if (was == is) return;
    differences.push_back(absl::StrCat("model.", key, ": is ", was, " there, ", is, " here"));
  };
  if (config.run.experts.empty()) {  // else they are those of the cut model, see take_weights()
    compare("num_experts", static_cast<double>(a.num_experts), static_cast<double>(b.num_experts));
  }
  compare("n_heads", static_cast<double>(a.n_heads), static_cast<double>(b.n_heads));
  compare("rope_theta", a.rope_theta, b.rope_theta);
  compare("norm_epsilon", a.norm_epsilon, b.norm_epsilon);
  compare("qk_norm", a.qk_norm ? 1 : 0, b.qk_norm ? 1 : 0);
  if (a.selection_bias != b.selection_bias) {
    differences.push_back(a.selection_bias
                              ? "routing.bias_rate is 0: its routers have biases that it moves"
                              : "routing.bias_rate is not 0: its routers have no biases to move");
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(folder, ": another model:\n  ", absl::StrJoin(differences, "\n  ")));
}

// The checkpoint's description must fit, and its routing contract must be known or be stated anew.
absl::Status check_description(const std::string& folder, const RunConfig& config) {
  absl::StatusOr<ModelDescription> description = read_config_json(folder + "/config.json");
  if (!description.ok()) return description.status();
  if (!description->contract_stated && !config.run.change_contract) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder,
        ": its routing contract is not stated. State the one to train with in the section "
        "'routing', and set run.change_contract=true."));
  }
  return check_model(folder, config, *description);
}

absl::StatusOr<RunStart> resume(const std::string& folder, const RunConfig& config,
                                const ChunkSource& source, const Mesh& mesh, Model* model,
                                OptimizerState* optimizer) {
  absl::StatusOr<TrainingPosition> position = read_position(folder);
  if (!position.ok()) return position.status();
  absl::Status status = check_resumable(folder, config, source, *position);
  if (status.ok()) status = read_model(folder, model);
  // A run that is done needs no moments.
  if (status.ok() && (position->step < config.total_steps() || has_optimizer(folder))) {
    status = read_optimizer(folder, position->step, model, optimizer);
  }
  if (!status.ok()) return status;
  if (mesh.is_first()) {
    std::fprintf(stderr, "emo: going on from %s (step %lld)\n", folder.c_str(),
                 static_cast<long long>(position->step));
  }
  absl::StatusOr<std::string> pruning = pruning_of(folder);
  if (!pruning.ok()) return pruning.status();
  return RunStart{*std::move(position), *std::move(pruning)};
}

// The weights that the run starts from, those of a checkpoint or of some of its experts. Answers
// RunStart::pruning.
absl::StatusOr<std::string> take_weights(const RunConfig& config, Model* model) {
  const std::string& folder = config.run.start_from;
  if (config.run.experts.empty()) {
    absl::Status status = read_model(folder, model);
    if (!status.ok()) return status;
    return pruning_of(folder);
  }
  absl::StatusOr<ModelDescription> parent = read_config_json(folder + "/config.json");
  if (!parent.ok()) return parent.status();
  absl::StatusOr<TensorFolder> tensors = TensorFolder::open(folder, "model");
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<SubsetFile> subset =
      read_subset(config.run.experts, parent->config, model_identity(*tensors));
  if (!subset.ok()) return subset.status();
  tensors = cut_tensors(*std::move(tensors), parent->config, subset->experts_kept_per_layer);
  if (!tensors.ok()) return tensors.status();
  const ModelConfig cut = cut_config(parent->config, subset->experts_kept_per_layer);
  if (cut.num_experts != model->config.num_experts) {
    return absl::FailedPreconditionError(
        absl::StrCat(config.run.experts, " keeps ", cut.num_experts,
                     " experts a layer, model.num_experts is ", model->config.num_experts,
                     "; set model.num_experts=", cut.num_experts, " and model.top_k=", cut.top_k));
  }
  absl::Status status = read_parameters(*tensors, "", model->config, model->layout, /*exact=*/true,
                                        &model->parameters);
  if (!status.ok()) return status;
  return to_text(pruning_json(*subset, parent->config));
}

absl::StatusOr<RunStart> take_over(const RunConfig& config, const ChunkSource& source, Model* model,
                                   OptimizerState* optimizer) {
  const std::string& folder = config.run.start_from;
  absl::StatusOr<TrainingPosition> position = read_position(folder);
  if (!position.ok()) return position.status();
  absl::Status status = check_description(folder, config);
  if (status.ok()) status = check_contract(folder, config, *position);
  if (status.ok() && config.run.take == Take::kAll) {
    status = check_data(folder, config, source, *position);
  }
  if (!status.ok()) return status;
  absl::StatusOr<std::string> pruning = take_weights(config, model);
  if (!pruning.ok()) return pruning.status();
  if (config.run.take != Take::kWeights) {
    status = read_optimizer(folder, position->step, model, optimizer);
  }
  if (!status.ok()) return status;
  if (config.run.take != Take::kAll) return RunStart{TrainingPosition(), *std::move(pruning)};
  position->evaluation = {};  // measured on another run's machine
  position->schedule_start = {};
  // Other data begins at its own beginning.
  if (knows_data(*position) && !source.matches(position->data_fingerprint)) {
    position->data_start = position->sequences;
  }
  if (config.schedule.start == Schedule::Start::kCheckpoint) {
    if (position->learning_rate <= 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          folder,
          ": schedule.start checkpoint: its state.json does not say its learning rate; "
          "older versions and imports of weights do not"));
    }
    position->schedule_start = {position->step, position->learning_rate};
  }
  if (position->step >= config.total_steps()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "run.take all goes on from step ", position->step, " of ", folder, ", and train says ",
        config.total_steps(), " steps in all: there is nothing to do"));
  }
  return RunStart{*std::move(position), *std::move(pruning)};
}

absl::StatusOr<ExpertOrder> find_expert_order(const RunConfig& config, const RunOrigin& origin) {
  if (!config.parallel.placement.empty()) return placement_of_config(config);
  if (origin.checkpoint.empty()) return ExpertOrder();
  if (!origin.resumes && !config.run.experts.empty()) return ExpertOrder();  // of fewer experts
  return carried_expert_order(origin.checkpoint, config.model);
}

}  // namespace

absl::StatusOr<ExpertOrder> placement_of_config(const RunConfig& config) {
  if (config.parallel.placement.empty()) return ExpertOrder();
  return read_expert_order(config.parallel.placement, config.model);
}

absl::StatusOr<RunOrigin> find_origin(const RunConfig& config, const Mesh& mesh) {
  absl::StatusOr<std::string> latest = std::string();
  if (mesh.is_first()) latest = latest_checkpoint(config.run.folder);
  absl::Status status = agree(*mesh.world, latest.status());
  if (!status.ok()) return status;
  const std::string own = gather_texts(*mesh.world, *latest).front();
  return own.empty() ? RunOrigin{config.run.start_from, false} : RunOrigin{own, true};
}

absl::StatusOr<ExpertOrder> expert_order_for_run(const RunConfig& config, const RunOrigin& origin,
                                                 const Mesh& mesh) {
  absl::StatusOr<ExpertOrder> order = find_expert_order(config, origin);
  absl::Status status = agree(*mesh.world, order.status());
  if (!status.ok()) return status;
  return order;
}

absl::StatusOr<RunStart> start_run(const RunConfig& config, const RunOrigin& origin,
                                   const ChunkSource& source, const Mesh& mesh, Model* model,
                                   OptimizerState* optimizer) {
  if (origin.checkpoint.empty()) {
    initialise(model->config, model->layout, &model->parameters);
    return RunStart();
  }
  absl::Status status = verify_checkpoint(*mesh.world, origin.checkpoint);
  if (!status.ok()) return status;
  absl::StatusOr<RunStart> start =
      origin.resumes ? resume(origin.checkpoint, config, source, mesh, model, optimizer)
                     : take_over(config, source, model, optimizer);
  status = agree(*mesh.world, start.status());
  if (!status.ok()) return status;
  return start;
}

absl::Status start_weights(const RunConfig& config, const Mesh& mesh, Model* model) {
  if (config.run.start_from.empty()) {
    initialise(model->config, model->layout, &model->parameters);
    return absl::OkStatus();
  }
  absl::Status status = verify_checkpoint(*mesh.world, config.run.start_from);
  if (!status.ok()) return status;
  status = check_description(config.run.start_from, config);
  if (status.ok()) status = take_weights(config, model).status();
  return agree(*mesh.world, status);
}

}  // namespace emo
