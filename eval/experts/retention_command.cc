#include "eval/commands.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "data/program/progress.h"
#include "eval/experts/expert_ranking.h"
#include "eval/experts/retention.h"
#include "eval/experts/retention_draft.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"
#include "train/model_folder/hugging_face.h"
#include "train/subset/expert_subset.h"
#include "train/subset/keep.h"

namespace emo {
namespace {

struct RetentionCommandOptions {
  std::vector<std::string> checkpoints;  // NAME=FOLDER or FOLDER
  std::string calibration, data, output;
  std::vector<std::string> keep = {"0.25", "0.125"};
  RetentionOptions retention;
  MeshOptions mesh;
  bool overwrite = false;
  bool json = false;
};

using NamedModel = std::pair<std::string, std::string>;  // name and folder

// From arguments NAME=FOLDER or FOLDER. What is wrong with any of them is said before the first is
// measured.
absl::StatusOr<std::vector<NamedModel>> named_models(const std::vector<std::string>& arguments) {
  std::vector<NamedModel> models;
  std::set<std::string> names;
  std::vector<std::string> missing;
  for (const std::string& argument : arguments) {
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string folder = equals == std::string::npos ? argument : argument.substr(equals + 1);
    if (!names.insert(name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two models are called ", name, "; name them, as in a=", folder));
    }
    if (absl::Status found = find_model(folder).status(); !found.ok()) {
      missing.emplace_back(found.message());
    }
    models.emplace_back(name, folder);
  }
  if (!missing.empty()) return absl::NotFoundError(absl::StrJoin(missing, "\n"));
  return models;
}

// What no model of them can keep.
absl::Status check_models(const std::vector<NamedModel>& models, const RetentionOptions& options) {
  std::vector<std::string> wrong;
  for (const auto& [name, folder] : models) {
    absl::StatusOr<std::string> found = find_model(folder);
    if (!found.ok()) return found.status();
    absl::StatusOr<ModelDescription> description = read_config_json(*found + "/config.json");
    if (!description.ok()) return description.status();
    absl::Status status = check_cuts(description->config, options);
    if (!status.ok()) wrong.push_back(absl::StrCat(name, ": ", status.message()));
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
}

// All models' measurements: what is kept of them, and one line that tells of all.
class Measuring {
 public:
  Measuring(const RetentionCommandOptions& options, const Mesh& mesh, size_t models,
            RetentionDraft draft)
      : options_(options), mesh_(mesh), models_(models), draft_(std::move(draft)) {}

  // Collective.
  absl::StatusOr<RetentionReport> measure(const NamedModel& model) {
    const std::string& name = model.first;
    absl::StatusOr<OpenedModel> opened = open_model(model.second, mesh_, "", options_.mesh);
    if (!opened.ok()) return opened.status();
    absl::StatusOr<TokenDataset> calibration = open_data_for(*opened, options_.calibration, mesh_);
    if (!calibration.ok()) return calibration.status();
    absl::StatusOr<TokenDataset> data = open_data_for(*opened, options_.data, mesh_);
    if (!data.ok()) return data.status();
    const RetentionOptions& retention = options_.retention;
    const std::string identity = retention_identity(*opened, *calibration, *data, retention);
    const std::string note = absl::StrCat(name, " (", ++begun_, "/", models_, ")");
    RetentionProgress progress;
    progress.known = draft_.known(name, identity, 2 + cuts_of(retention).size());
    progress.begins = [this](int64_t passes) {
      if (shown_) return;
      shown_.emplace("retention", passes * static_cast<int64_t>(models_), "passes",
                     mesh_.is_first());
    };
    progress.passed = [this, &note](const std::string& domain, int64_t passes) {
      shown_->update(done_ += passes, absl::StrCat(note, ", ", domain));
    };
    progress.measured = [&](const std::string& domain, const DomainLosses& losses) {
      return draft_.keep(name, identity, domain, losses);
    };
    return measure_retention(*opened, mesh_, *calibration, *data, retention, progress);
  }

  const RetentionDraft& draft() const { return draft_; }

 private:
  const RetentionCommandOptions& options_;
  const Mesh& mesh_;
  const size_t models_;
  RetentionDraft draft_;
  std::optional<Progress> shown_;
  size_t begun_ = 0;  // models
  int64_t done_ = 0;  // passes
};

absl::StatusOr<int> retention(RetentionCommandOptions options) {
  absl::StatusOr<std::vector<Keep>> keeps = parse_keeps(options.keep);
  if (!keeps.ok()) return keeps.status();
  options.retention.keeps = *std::move(keeps);
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::Status status = agree(*mesh->world, check_new_file(options.output, options.overwrite));
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<NamedModel>> models = named_models(options.checkpoints);
  status = models.status();
  if (status.ok()) status = check_models(*models, options.retention);
  status = agree(*mesh->world, status);
  if (!status.ok()) return status;
  absl::StatusOr<RetentionDraft> draft = RetentionDraft::open(*mesh, options.output);
  if (!draft.ok()) return draft.status();
  Measuring measuring(options, *mesh, models->size(), *std::move(draft));
  std::vector<std::pair<std::string, RetentionReport>> reports;
  OrderedJson json = OrderedJson::object();
  for (const NamedModel& model : *models) {
    absl::StatusOr<RetentionReport> report = measuring.measure(model);
    if (!report.ok()) return report.status();
    json[model.first] = to_json(*report);
    reports.emplace_back(model.first, *std::move(report));
  }
  if (!mesh->is_first()) return kExitDone;
  if (!options.output.empty()) {
    status = write_file_durably(posix_file_system(), options.output, to_text(json));
    if (status.ok()) status = measuring.draft().remove();
    if (!status.ok()) return status;
  }
  std::printf("%s", options.json ? (to_text(json)).c_str() : to_table(reports).c_str());
  return kExitDone;
}

}  // namespace

Command experts_retention_command() {
  auto options = std::make_shared<RetentionCommandOptions>();
  Command command;
  command.name = "experts retention";
  command.summary =
      "Loss that is left when only each domain's experts are kept, for one or more models";
  command.options
      .add("CHECKPOINT", &options->checkpoints, "models or runs, each as FOLDER or NAME=FOLDER")
      .required();
  command.options
      .add("--calibration", &options->calibration, "prepared documents to rank experts by")
      .required();
  command.options.add("--data", &options->data, "prepared documents to evaluate").required();
  command.options.add("--keep", &options->keep, kKeepHelp).commas().show_default();
  command.options
      .add("--method", &options->retention.methods, "how experts are chosen, see emo experts rank")
      .commas()
      .one_of(ranking_methods())
      .show_default();
  command.options
      .add("--documents", &options->retention.documents,
           "with the first method, also by so few calibration documents, as in 1,5,10,100")
      .commas();
  command.options
      .add("--test-documents", &options->retention.test_documents,
           "evaluate only so many documents of each label; 0: all")
      .at_least(0)
      .show_default();
  command.options.add("--other-domain", &options->retention.other_domain,
                      "with the first method, also by another domain's experts: the next label's");
  command.options
      .add("--seed", &options->retention.seed, "of the draw of documents, and of random subsets")
      .show_default();
  command.options.add(
      "--output", &options->output,
      "also write the JSON to this file; until it is done OUTPUT.part beside it holds "
      "what was measured, and the same command goes on from there");
  command.options.add("--overwrite", &options->overwrite, "replace the output");
  add_mesh_options(&command.options, &options->mesh);
  add_device_options(&command.options, &options->mesh);
  command.options.add("--json", &options->json,
                      "one JSON object on standard output instead of the table");
  command.footer =
      "Example: emo experts retention emo=runs/quickstart/emo\n"
      "         standard=runs/quickstart/standard\n"
      "         --calibration runs/quickstart/data/validation --data runs/quickstart/data/test";
  command.run = [options] { return retention(*options); };
  return command;
}

}  // namespace emo
