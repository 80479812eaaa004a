#include "data/files/readable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

class PreadFile : public ReadableFile {
 public:
  PreadFile(std::string path, int fd, int64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}
  ~PreadFile() override { ::close(fd_); }
  PreadFile(const PreadFile&) = delete;
  PreadFile& operator=(const PreadFile&) = delete;

  const std::string& path() const override { return path_; }
  int64_t size() const override { return size_; }
  absl::Status read(int64_t begin, int64_t count, char* to) const override {
    while (count > 0) {
      const ssize_t got = ::pread(fd_, to, static_cast<size_t>(count), begin);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return absl::UnknownError(
            absl::StrCat(path_, ": reading byte ", begin, ": ", std::strerror(errno)));
      }
      if (got == 0) {
        return absl::DataLossError(absl::StrCat(path_, ": ends at byte ", begin, ", had ", size_,
                                                " when it was opened; was it cut while in use?"));
      }
      begin += got;
      count -= got;
      to += got;
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const int fd_;
  const int64_t size_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ReadableFile>> open_readable(const std::string& path) {
  // A pipe that nobody writes to would keep an open() waiting for ever.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) {
    const std::string why = absl::StrCat(path, ": ", std::strerror(errno));
    const bool too_many = errno == EMFILE || errno == ENFILE;
    if (fd >= 0) ::close(fd);
    if (too_many) {
      return absl::ResourceExhaustedError(
          why + "; a run keeps its data's files open: raise the limit (ulimit -n)");
    }
    return absl::NotFoundError(why);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(path + (S_ISDIR(status.st_mode)
                                                  ? ": is a folder"
                                                  : ": is no file, but a pipe or a device"));
  }
  return std::make_unique<PreadFile>(path, fd, static_cast<int64_t>(status.st_size));
}

}  // namespace emo
