// One process at a time, where several share a folder.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace emo {

// Held while it lives, and by no process that has ended, however it ended. Movable.
class FileLock {
 public:
  enum class Held {
    kWait,    // until another process lets go, and say so on standard error
    kRefuse,  // AlreadyExists, naming who holds it: host, process and since when
  };
  // The file stays when the lock is gone; it says who held it last. A file system without locks
  // grants it to all. PermissionDenied, NotFound or Unknown where the
  // file cannot be made.
  static absl::StatusOr<FileLock> take(const std::string& path, Held held);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

  // Of a child process that keeps it open the lock is too, as long as it lives.
  int descriptor() const { return fd_; }

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace emo
