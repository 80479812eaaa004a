// The documents that experts are measured on: prepared data, or the questions of tasks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>
#include "data/program/options.h"

#include "absl/status/statusor.h"
#include "data/shards/token_dataset.h"
#include "eval/open/open_model.h"
#include "parallel/mesh.h"

namespace emo {

struct CalibrationOptions {
  std::string data;                // folder of emo prepare, or
  std::vector<std::string> tasks;  // task files: each question with its examples and its answer
  std::string split = "train";     // of the tasks
  std::optional<int64_t> shots;    //
};

// --data, --tasks, --split, --shots
void add_calibration_options(OptionList* list, CalibrationOptions* options);

// A folder that goes when the value does.
class TemporaryFolder {
 public:
  TemporaryFolder() = default;
  static absl::StatusOr<TemporaryFolder> create();
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TemporaryFolder& operator=(TemporaryFolder&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  std::string path_;  // "": none
};

struct CalibrationData {
  TemporaryFolder folder;  // where tasks were prepared, by each rank for itself
  TokenDataset data;       // its sources are the tasks' names
};

// Collective; every rank gets the same answer. InvalidArgument unless either data or tasks are
// named.
absl::StatusOr<CalibrationData> open_calibration(const OpenedModel& model,
                                                 const CalibrationOptions& options,
                                                 const Mesh& mesh);

}  // namespace emo
