#include "eval/commands.h"

#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/files/file_system.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "eval/experts/expert_ranking.h"
#include "eval/experts/retention.h"
#include "eval/open/mesh_options.h"
#include "eval/open/open_model.h"
#include "eval/open/output_file.h"
#include "parallel/agreement.h"
#include "train/checkpoint/find_model.h"
#include "train/subset/expert_subset.h"

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
    if (absl::Status found = find_model(folder).status(); !found.ok()) {
      missing.emplace_back(found.message());
    }
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
  status = agree(*mesh->world, models.status());
  if (!status.ok()) return status;
  std::vector<std::pair<std::string, RetentionReport>> reports;
  OrderedJson json = OrderedJson::object();
  for (const auto& [name, folder] : *models) {
    absl::StatusOr<OpenedModel> opened = open_model(folder, *mesh, "", options.mesh);
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
  command.options
      .add("--keep", &options->retention.fractions, "fractions of the experts, as in 0.25,0.125")
      .commas()
      .range(0.0, 1.0)
      .show_default();
  command.options
      .add("--method", &options->retention.methods, "how experts are chosen, see emo experts rank")
      .commas()
      .one_of({"layerwise", "router", "easy_ep", "random"})
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
  command.options.add("--output", &options->output, "also write the JSON to this file");
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
