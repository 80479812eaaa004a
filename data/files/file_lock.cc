#include "data/files/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "data/files/file_system.h"

namespace emo {
namespace {

constexpr absl::Duration kBetweenTries = absl::Milliseconds(50);
constexpr int kQuietTries = 100;  // before it is said that we wait

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

std::string holder_of(const std::string& path, int fd) {
  char text[512];
  const ssize_t got = ::pread(fd, text, sizeof text, 0);
  const absl::string_view holder(text, static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return absl::StrCat(path, ": in use by ", absl::StripAsciiWhitespace(holder));
}

int lock_file(int fd, int how) {
  int got = 0;
  do {
    got = ::flock(fd, how);
  } while (got != 0 && errno == EINTR);
  return got;
}

}  // namespace

absl::StatusOr<FileLock> FileLock::take(const std::string& path, Held held) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return errno_status("cannot lock", path);
  FileLock lock(fd);
  int got = lock_file(fd, LOCK_EX | LOCK_NB);
  const auto is_held = [&] { return got != 0 && errno == EWOULDBLOCK; };
  if (is_held() && held == Held::kRefuse) return absl::AlreadyExistsError(holder_of(path, fd));
  for (int tries = 0; is_held() && tries < kQuietTries; ++tries) {
    absl::SleepFor(kBetweenTries);
    got = lock_file(fd, LOCK_EX | LOCK_NB);
  }
  if (is_held()) {
    std::fprintf(stderr, "emo: waiting: %s\n", holder_of(path, fd).c_str());
    got = lock_file(fd, LOCK_EX);
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
