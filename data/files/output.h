// What a command writes where its user says: a file, or what only looks like one. One way to write
// serves every command.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/files/file_system.h"

namespace emo {

struct OutputPlace {
  enum class Kind {
    kFile,        // a regular file, or nothing yet: replaced by another when all is written
    kStream,      // a device, a pipe or a socket: written to
    kDescriptor,  // what is open already, as /dev/stdout and /dev/fd/63: written to
  };
  Kind kind = Kind::kFile;
  std::string path;     // behind all symbolic links, which stay
  int descriptor = -1;  // kDescriptor: its number
};

// AlreadyExists where a folder stands, Unknown for links that go in a circle.
absl::StatusOr<OutputPlace> output_place(const std::string& path);

// An output being written from its beginning. What stood there stays until close() says OK, and so
// it does after a crash; of streams and descriptors, what was appended is gone. close() syncs. An
// object that is destroyed without it leaves nothing behind. Errors as of output_place and of
// FileSystem.
absl::StatusOr<std::unique_ptr<WritableFile>> create_output(FileSystem& fs, const std::string& path,
                                                            Writing writing);

// Removes what a process that was killed while it wrote `path` has left. REQUIRES: no process
// writes it now, which a FileLock can say.
absl::Status remove_left_overs(FileSystem& fs, const std::string& path);

}  // namespace emo
