#include "eval/retention_command.h"

#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/exit_code.h"
#include "data/file_system.h"
#include "data/json.h"
#include "eval/expert_ranking.h"
#include "eval/mesh_options.h"
#include "eval/open_model.h"
#include "eval/output_file.h"
#include "eval/retention.h"
#include "train/agreement.h"
#include "train/expert_subset.h"

namespace emo {
namespace {

struct RetentionCommandOptions {
  std::vector<std::string> checkpoints;  // NAME=FOLDER or FOLDER
  std::string calibration, data, output;
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
    if (!path_exists(folder + "/config.json")) missing.push_back(folder + ": no config.json");
    models.emplace_back(name, folder);
  }
  if (!missing.empty()) return absl::NotFoundError(absl::StrJoin(missing, "\n"));
  return models;
}

absl::StatusOr<int> retention(const RetentionCommandOptions& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::Status status = agree(*mesh->world, check_new_file(options.output, options.overwrite));
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<NamedModel>> models = named_models(options.checkpoints);
  if (!models.ok()) return models.status();
  std::vector<std::pair<std::string, RetentionReport>> reports;
  OrderedJson json = OrderedJson::object();
  for (const auto& [name, folder] : *models) {
    absl::StatusOr<OpenedModel> opened = open_model(folder, *mesh);
    if (!opened.ok()) return opened.status();
    absl::StatusOr<TokenDataset> calibration = open_data_for(*opened, options.calibration, *mesh);
    if (!calibration.ok()) return calibration.status();
    absl::StatusOr<TokenDataset> data = open_data_for(*opened, options.data, *mesh);
    if (!data.ok()) return data.status();
    absl::StatusOr<RetentionReport> report =
        measure_retention(*opened, *mesh, *calibration, *data, options.retention);
    if (!report.ok()) return report.status();
    json[name] = to_json(*report);
    reports.emplace_back(name, *std::move(report));
  }
  if (!mesh->is_first()) return kExitDone;
  if (!options.output.empty()) {
    status = write_file_durably(posix_file_system(), options.output, to_text(json));
    if (!status.ok()) return status;
  }
  std::printf("%s", options.json ? (to_text(json)).c_str() : to_table(reports).c_str());
  return kExitDone;
}

}  // namespace

Command experts_retention_command(CLI::App& experts) {
  auto options = std::make_shared<RetentionCommandOptions>();
  CLI::App* app = experts.add_subcommand(
      "retention",
      "Loss that is left when only each domain's experts are kept, for one or more models");
  app->add_option("CHECKPOINT", options->checkpoints,
                  "model folders, each as FOLDER or NAME=FOLDER")
      ->required();
  app->add_option("--calibration", options->calibration, "prepared documents to rank experts by")
      ->required();
  app->add_option("--data", options->data, "prepared documents to evaluate")->required();
  app->add_option("--keep", options->retention.fractions,
                  "fractions of the experts, as in 0.25,0.125")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app->add_option("--method", options->retention.methods,
                  "how experts are chosen, see emo experts rank")
      ->delimiter(',')
      ->check(CLI::IsMember({"layerwise", "router", "easy_ep", "random"}))
      ->capture_default_str();
  app->add_option("--documents", options->retention.documents,
                  "with the first method, also by so few calibration documents, as in 1,5,10,100")
      ->delimiter(',');
  app->add_option("--test-documents", options->retention.test_documents,
                  "evaluate only so many documents of each label; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_flag("--other-domain", options->retention.other_domain,
                "with the first method, also by another domain's experts: the next label's");
  app->add_option("--seed", options->retention.seed,
                  "of the draw of documents, and of random subsets")
      ->capture_default_str();
  app->add_option("--output", options->output, "also write the JSON to this file");
  app->add_flag("--overwrite", options->overwrite, "replace the output");
  add_mesh_options(app, &options->mesh);
  app->add_flag("--json", options->json, "one JSON object on standard output instead of the table");
  app->footer(
      "Example: emo experts retention emo=runs/quickstart/emo/step-0001000\n"
      "         standard=runs/quickstart/standard/step-0001000\n"
      "         --calibration runs/quickstart/data/validation --data runs/quickstart/data/test");
  return {app, [options] { return retention(*options); }};
}

}  // namespace emo
