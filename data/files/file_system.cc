#include "data/files/file_system.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/files/output.h"
#include "data/files/streamed_file.h"

namespace emo {
namespace {

class PosixFile : public WritableFile {
 public:
  PosixFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~PosixFile() override {
    if (fd_ >= 0) ::close(fd_);
  }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  absl::Status append(absl::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return errno_status("cannot write", path_);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    return absl::OkStatus();
  }
  absl::Status sync() override {
    return ::fsync(fd_) == 0 ? absl::OkStatus() : errno_status("cannot sync", path_);
  }
  absl::Status close() override {
    const int fd = std::exchange(fd_, -1);
    return ::close(fd) == 0 ? absl::OkStatus() : errno_status("cannot close", path_);
  }

 private:
  std::string path_;
  int fd_;
};

FileIdentity identity_of(const struct stat& info) { return {info.st_dev, info.st_ino}; }

// What cannot be written is that, also where a part of the path is missing.
absl::Status write_error(const std::string& what, const std::string& path) {
  absl::Status status = errno_status(what, path);
  return absl::IsNotFound(status) ? absl::PermissionDeniedError(status.message()) : status;
}

class PosixFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> create(const std::string& path,
                                                       Writing writing) override {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return write_error("cannot create", path);
    if (writing == Writing::kStreamed) return streamed_file(path, fd);
    return std::make_unique<PosixFile>(path, fd);
  }
  absl::Status rename(const std::string& from, const std::string& to) override {
    return ::rename(from.c_str(), to.c_str()) == 0 ? absl::OkStatus()
                                                   : write_error("cannot rename to", to);
  }
  absl::Status make_directories(const std::string& path) override {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (!error) return absl::OkStatus();
    errno = error.value();
    return write_error("cannot make directory", path);
  }
  absl::Status sync_directory(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return write_error("cannot open directory", path);
    const bool synced = ::fsync(fd) == 0;
    absl::Status status = synced ? absl::OkStatus() : errno_status("cannot sync", path);
    ::close(fd);
    return status;
  }
  absl::Status remove_all(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (!error) return absl::OkStatus();
    errno = error.value();
    return errno_status("cannot remove", path);
  }
};

}  // namespace

absl::Status errno_status(const std::string& what, const std::string& path) {
  const int code = errno;
  const std::string message = absl::StrCat(what, " ", path, ": ", std::strerror(code));
  switch (code) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    default:
      return absl::UnknownError(message);
  }
}

std::unique_ptr<WritableFile> descriptor_file(std::string path, int fd) {
  return std::make_unique<PosixFile>(std::move(path), fd);
}

FileSystem& posix_file_system() {
  static PosixFileSystem fs;
  return fs;
}

MappedFile::MappedFile(std::string path, const char* data, size_t size, FileIdentity identity)
    : path_(std::move(path)), data_(data), size_(size), identity_(identity) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      identity_(other.identity_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(identity_, other.identity_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr && size_ > 0) ::munmap(const_cast<char*>(data_), size_);
}

absl::StatusOr<MappedFile> MappedFile::open(const std::string& path) {
  // A pipe that nobody writes to would keep an open() waiting for ever.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    absl::Status status = errno_status("cannot open", path);
    return absl::IsPermissionDenied(status) ? absl::NotFoundError(status.message()) : status;
  }
  struct stat info {};
  if (::fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
    errno = S_ISDIR(info.st_mode) ? EISDIR : errno;
    absl::Status status = errno_status("cannot read", path);
    ::close(fd);
    return status;
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(path + ": is no file, but a pipe or a device");
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* data = size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  absl::Status status = data == MAP_FAILED ? errno_status("cannot map", path) : absl::OkStatus();
  ::close(fd);
  if (!status.ok()) return status;
  return MappedFile(path, static_cast<const char*>(data), size, identity_of(info));
}

int MappedFile::open_again(int flags) const {
  const int fd = ::open(path_.c_str(), flags);
  struct stat info {};
  if (fd >= 0 && ::fstat(fd, &info) == 0 && identity_of(info) == identity_) return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

void will_read(absl::string_view mapped) {
  constexpr uintptr_t kPiece = 1 << 20;  // the system takes no more than its read-ahead at once
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(mapped.data());
  const uintptr_t end = address + mapped.size();
  for (uintptr_t begin = address / page * page; begin < end; begin += kPiece) {
    // Advice: where it is not taken, more is read, and nothing else.
    madvise(reinterpret_cast<void*>(begin), std::min(kPiece, end - begin), MADV_WILLNEED);
  }
}

void release_pages(absl::string_view mapped) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(mapped.data());
  const uintptr_t begin = (address + page - 1) / page * page;
  const uintptr_t end = (address + mapped.size()) / page * page;
  // Advice: where it is not taken, memory is used for longer, and nothing else.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

absl::StatusOr<std::string> read_file(const std::string& path, uint64_t max_bytes) {
  absl::StatusOr<MappedFile> file = MappedFile::open(path);
  if (!file.ok()) return file.status();
  if (file->bytes().size() > max_bytes) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", file->bytes().size(), " bytes, expected at most ", max_bytes));
  }
  return std::string(file->bytes());
}

absl::Status write_file_durably(FileSystem& fs, const std::string& path,
                                absl::string_view contents) {
  absl::StatusOr<std::unique_ptr<WritableFile>> file = create_output(fs, path, Writing::kPrompt);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->append(contents);
  return status.ok() ? (*file)->close() : status;
}

std::string parent_folder(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool path_exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

bool is_directory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

absl::StatusOr<std::vector<std::string>> list_directory(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) {
    errno = error.value();
    return errno_status("cannot list", path);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::vector<std::string>> list_files(const std::string& path) {
  if (!path_exists(path)) return absl::NotFoundError(path + ": no such file or folder");
  if (!is_directory(path)) return std::vector<std::string>{path};
  std::error_code error;
  std::vector<std::string> files;
  for (std::filesystem::recursive_directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code broken_link;
    if (it->is_regular_file(broken_link)) files.push_back(it->path().string());
  }
  if (error) {
    errno = error.value();
    return errno_status("cannot list", path);
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace emo
