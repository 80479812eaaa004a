// A large file that is written once from its beginning to its end, at the disk's own rate: beside
// the caller's work, and past the system's cache where the file system can (O_DIRECT). Through the
// cache every page has to be found, filled and handed to the disk, which takes longer than the disk
// does, and pushes out what others will read again.
#pragma once

#include <memory>
#include <string>

#include "data/files/file_system.h"

namespace emo {

// Takes `fd`, which it closes; `path` is for messages. What fails is reported by a later call at
// the latest by sync() or close(), and by every one after it. REQUIRES: an empty regular file open
// for writing.
std::unique_ptr<WritableFile> streamed_file(std::string path, int fd);

}  // namespace emo
