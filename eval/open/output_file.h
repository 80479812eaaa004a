// Files that commands write at their end.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace emo {

// What is written at the end must be possible from the start: PermissionDenied where the folder is
// not there or not to be written to, AlreadyExists where the file is and `overwrite` is false, or a
// folder is. OK for "", and for devices, pipes and what is open, which are not overwritten but
// written to.
absl::Status check_new_file(const std::string& path, bool overwrite);

}  // namespace emo
