#include "eval/open/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "data/files/file_system.h"
#include "data/files/output.h"

namespace emo {

absl::Status check_new_file(const std::string& path, bool overwrite) {
  if (path.empty()) return absl::OkStatus();
  absl::StatusOr<OutputPlace> place = output_place(path);
  if (!place.ok()) return place.status();
  if (place->kind == OutputPlace::Kind::kDescriptor) {
    const int mode = fcntl(place->descriptor, F_GETFL);
    if (mode < 0) return errno_status("cannot write", path);
    if ((mode & O_ACCMODE) != O_RDONLY) return absl::OkStatus();
    return absl::PermissionDeniedError(path + ": is open for reading only");
  }
  if (place->kind == OutputPlace::Kind::kStream) {
    return access(place->path.c_str(), W_OK) == 0 ? absl::OkStatus()
                                                  : errno_status("cannot write", path);
  }
  const std::string folder = parent_folder(place->path);
  if (!is_directory(folder)) {
    return absl::PermissionDeniedError(path + ": there is no folder " + folder);
  }
  if (!overwrite && path_exists(place->path)) {
    return absl::AlreadyExistsError(path + ": stands already; --overwrite replaces it");
  }
  // Begun, and given up.
  return create_output(posix_file_system(), path, Writing::kPrompt).status();
}

}  // namespace emo
