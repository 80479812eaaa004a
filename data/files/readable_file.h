// The seam between the program and the files that it reads while it trains: a test can put one in
// between that fails, waits or ends too early.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace emo {

// A file that is read at any place. Thread-safe. Unlike a mapped file, one that becomes shorter, or
// a disk that fails, is an error, not the end of the process.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  virtual const std::string& path() const = 0;
  virtual int64_t size() const = 0;  // bytes, when it was opened
  // Fills to[0, count) with the bytes from `begin` on. DataLoss where the file has become shorter;
  // Unknown where the system cannot read it. REQUIRES: 0 <= begin, begin + count <= size().
  virtual absl::Status read(int64_t begin, int64_t count, char* to) const = 0;
};

// NotFound where it is missing or must not be read; ResourceExhausted where too many are open;
// InvalidArgument for what is no regular file, such as a folder or a pipe.
absl::StatusOr<std::unique_ptr<ReadableFile>> open_readable(const std::string& path);

// How files are opened: open_readable, but in tests.
using OpenReadable =
    std::function<absl::StatusOr<std::unique_ptr<ReadableFile>>(const std::string& path)>;

}  // namespace emo
