#include "data/files/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace emo {
namespace {

constexpr int kMostLinks = 40;  // as the system follows

// The number in "/dev/fd/63" and its like; -1: none.
int descriptor_of(absl::string_view path) {
  if (path == "/dev/stdin") return STDIN_FILENO;
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  int number = -1;
  const bool named =
      absl::ConsumePrefix(&path, "/dev/fd/") || absl::ConsumePrefix(&path, "/proc/self/fd/");
  return named && absl::SimpleAtoi(path, &number) ? number : -1;
}

// Takes the place of `path` when it is closed.
class Replacement : public WritableFile {
 public:
  Replacement(FileSystem& fs, std::string path, std::string temporary,
              std::unique_ptr<WritableFile> file)
      : fs_(fs), path_(std::move(path)), temporary_(std::move(temporary)), file_(std::move(file)) {}
  ~Replacement() override { give_up(); }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  absl::Status append(absl::string_view bytes) override { return file_->append(bytes); }
  absl::Status sync() override { return file_->sync(); }
  absl::Status close() override {
    absl::Status status = file_->sync();
    if (status.ok()) status = file_->close();
    if (status.ok()) status = fs_.rename(temporary_, path_);
    if (!status.ok()) {
      give_up();
      return status;
    }
    temporary_.clear();
    return fs_.sync_directory(parent_folder(path_));
  }

 private:
  void give_up() {
    if (temporary_.empty()) return;
    file_.reset();
    fs_.remove_all(std::exchange(temporary_, "")).IgnoreError();  // the first error matters
  }

  FileSystem& fs_;
  std::string path_, temporary_;  // temporary_: "" where there is none any more
  std::unique_ptr<WritableFile> file_;
};

// What need not, and mostly cannot, be synced.
class Stream : public WritableFile {
 public:
  explicit Stream(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  absl::Status append(absl::string_view bytes) override { return file_->append(bytes); }
  absl::Status sync() override { return absl::OkStatus(); }
  absl::Status close() override { return file_->close(); }

 private:
  std::unique_ptr<WritableFile> file_;
};

absl::StatusOr<std::unique_ptr<WritableFile>> open_descriptor(const OutputPlace& place) {
  std::fflush(nullptr);  // what was printed before comes before
  const int fd = ::fcntl(place.descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (fd < 0) return errno_status("cannot write", place.path);
  return descriptor_file(place.path, fd);
}

}  // namespace

absl::StatusOr<OutputPlace> output_place(const std::string& path) {
  OutputPlace place;
  place.path = path;
  std::error_code error;
  for (int links = 0;; ++links) {
    place.descriptor = descriptor_of(place.path);
    if (place.descriptor >= 0) {
      place.kind = OutputPlace::Kind::kDescriptor;
      return place;
    }
    const std::filesystem::path target = std::filesystem::read_symlink(place.path, error);
    if (error) break;  // no link
    if (links == kMostLinks) {
      errno = ELOOP;
      return errno_status("cannot write", path);
    }
    // `/` puts an absolute target in the place of the folder.
    place.path = (std::filesystem::path(place.path).parent_path() / target).string();
  }
  const std::filesystem::file_status status = std::filesystem::status(place.path, error);
  if (std::filesystem::is_directory(status)) {
    return absl::AlreadyExistsError(path + ": is a folder; name a file");
  }
  const bool is_file = !std::filesystem::exists(status) || std::filesystem::is_regular_file(status);
  place.kind = is_file ? OutputPlace::Kind::kFile : OutputPlace::Kind::kStream;
  return place;
}

absl::Status remove_left_overs(FileSystem& fs, const std::string& path) {
  const std::string folder = parent_folder(path);
  absl::StatusOr<std::vector<std::string>> names = list_directory(folder);
  if (!names.ok()) return names.status();
  const std::string beginning = absl::StrCat(file_name(path), ".tmp-");
  for (const std::string& name : *names) {
    if (!absl::StartsWith(name, beginning)) continue;
    absl::Status status = fs.remove_all(absl::StrCat(folder, "/", name));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<WritableFile>> create_output(FileSystem& fs, const std::string& path,
                                                            Writing writing) {
  absl::StatusOr<OutputPlace> place = output_place(path);
  if (!place.ok()) return place.status();
  const bool is_file = place->kind == OutputPlace::Kind::kFile;
  const std::string written =
      is_file ? absl::StrCat(place->path, ".tmp-", ::getpid()) : place->path;
  // Streams take no part in the ways of disks: a pipe would become one of packets.
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      place->kind == OutputPlace::Kind::kDescriptor
          ? open_descriptor(*place)
          : fs.create(written, is_file ? writing : Writing::kPrompt);
  if (!file.ok()) return file.status();
  if (!is_file) return std::make_unique<Stream>(*std::move(file));
  return std::make_unique<Replacement>(fs, place->path, written, *std::move(file));
}

}  // namespace emo
