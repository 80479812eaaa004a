// A run's metrics: metrics.jsonl, one object a step, and the same in TensorBoard's format under
// tb/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "train/metrics/router_metrics.h"
#include "train/metrics/tensorboard.h"

namespace emo {

class MetricsLog {
 public:
  // Keeps what metrics.jsonl says of steps up to `resumed_step` and drops later ones, which will be
  // written again. Fails as FileSystem does. Used on the first rank.
  // REQUIRES: the folder is there, and no other log of it is open.
  static absl::StatusOr<MetricsLog> open(FileSystem& fs, const std::string& run_folder,
                                         int64_t resumed_step);

  // Appends one step, above the last one's. Keys keep their order; numbers that are not finite are
  // written as null. Fails as FileSystem does; the run can go on without.
  absl::Status write(int64_t step, const Metrics& metrics);

 private:
  MetricsLog(std::unique_ptr<WritableFile> file, TensorBoardWriter tensorboard)
      : file_(std::move(file)), tensorboard_(std::move(tensorboard)) {}
  std::unique_ptr<WritableFile> file_;
  TensorBoardWriter tensorboard_;
};

}  // namespace emo
