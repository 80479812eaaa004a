#include "data/files/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "data/files/file_system.h"

namespace emo {
namespace {

std::string this_process() {
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  return absl::StrCat("process ", ::getpid(), " on ", host, ", since ",
                      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::Now(), absl::UTCTimeZone()),
                      "\n");
}

// For people: that it is held, not what stands in it, keeps others out.
void write_holder(int fd) {
  const std::string holder = this_process();
  if (::ftruncate(fd, 0) != 0) return;
  [[maybe_unused]] const ssize_t written = ::pwrite(fd, holder.data(), holder.size(), 0);
}

std::string read_holder(int fd) {
  char text[512];
  const ssize_t got = ::pread(fd, text, sizeof text, 0);
  return std::string(
      absl::StripAsciiWhitespace({text, static_cast<size_t>(std::max<ssize_t>(got, 0))}));
}

}  // namespace

absl::StatusOr<FileLock> FileLock::take(const std::string& path, Held held) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return errno_status("cannot lock", path);
  FileLock lock(fd);
  int got = 0;
  do {
    got = ::flock(fd, held == Held::kWait ? LOCK_EX : LOCK_EX | LOCK_NB);
  } while (got != 0 && errno == EINTR);
  if (got != 0 && errno == EWOULDBLOCK) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": in use by ", read_holder(fd)));
  }
  if (got == 0) write_holder(fd);
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace emo
