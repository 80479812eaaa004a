#include "eval/open/output_file.h"

#include <filesystem>

#include "data/files/file_system.h"

namespace emo {

absl::Status check_new_file(const std::string& path, bool overwrite) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (!folder.empty() && !is_directory(folder)) {
    return absl::PermissionDeniedError(path + ": there is no folder " + folder);
  }
  if (!path.empty() && is_directory(path)) {
    return absl::AlreadyExistsError(path + ": is a folder; name a file");
  }
  if (overwrite || path.empty() || !path_exists(path)) return absl::OkStatus();
  return absl::AlreadyExistsError(path + ": stands already; --overwrite replaces it");
}

}  // namespace emo
