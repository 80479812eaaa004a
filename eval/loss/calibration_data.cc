#include "eval/loss/calibration_data.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "data/prepare/prepare.h"
#include "parallel/agreement.h"

namespace emo {
namespace {

absl::Status prepare_tasks(const OpenedModel& model, const CalibrationOptions& options,
                           const std::string& folder) {
  PrepareOptions prepared;
  prepared.inputs = options.tasks;
  prepared.tokenizer = model.folder + "/tokenizer.json";
  prepared.output = folder;
  prepared.tasks = true;
  prepared.split = options.split;
  prepared.shots = options.shots;
  prepared.show_progress = false;
  return prepare(prepared).status();
}

}  // namespace

void add_calibration_options(OptionList* list, CalibrationOptions* options) {
  list->add("--data", &options->data, "documents: a folder that emo prepare wrote; or");
  list->add("--tasks", &options->tasks,
            "task files (docs/tasks.md): questions with their examples and right answers, "
            "labelled by task")
      .commas();
  list->add("--split", &options->split, "with --tasks: questions of which split").show_default();
  list->add("--shots", &options->shots,
            "with --tasks: examples before each question; else as many as the task says")
      .at_least(0);
}

absl::StatusOr<TemporaryFolder> TemporaryFolder::create() {
  std::error_code error;
  std::string path = (std::filesystem::temp_directory_path(error) / "emo-XXXXXX").string();
  if (error || mkdtemp(path.data()) == nullptr) {
    return absl::UnknownError(path + ": cannot make a temporary folder: " + std::strerror(errno));
  }
  TemporaryFolder folder;
  folder.path_ = path;
  return folder;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

absl::StatusOr<CalibrationData> open_calibration(const OpenedModel& model,
                                                 const CalibrationOptions& options,
                                                 const Mesh& mesh) {
  if (options.data.empty() == options.tasks.empty()) {
    return absl::InvalidArgumentError(
        "say which documents to measure on: either --data DIR or --tasks FILE");
  }
  TemporaryFolder folder;
  absl::Status status;
  if (!options.tasks.empty()) {
    absl::StatusOr<TemporaryFolder> made = TemporaryFolder::create();
    status = made.status();
    if (made.ok()) folder = *std::move(made);
    if (status.ok()) status = prepare_tasks(model, options, folder.path());
  }
  status = agree(*mesh.world, status);
  if (!status.ok()) return status;
  absl::StatusOr<TokenDataset> data =
      open_data_for(model, options.data.empty() ? folder.path() : options.data, mesh);
  if (!data.ok()) return data.status();
  return CalibrationData{std::move(folder), *std::move(data)};
}

}  // namespace emo
