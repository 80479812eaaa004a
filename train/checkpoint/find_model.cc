#include "train/checkpoint/find_model.h"

#include "data/files/file_system.h"
#include "train/checkpoint/checkpoint.h"

namespace emo {

absl::StatusOr<std::string> find_model(const std::string& path) {
  if (path_exists(path + "/config.json")) return path;
  absl::StatusOr<std::string> newest = latest_checkpoint(path);
  if (!newest.ok() || !newest->empty()) return newest;
  return absl::NotFoundError(
      path +
      ": no config.json, and no checkpoint of a run; name a model folder, or "
      "a run's folder, such as runs/tiny, for its newest checkpoint");
}

}  // namespace emo
