// The seam between the program and the disk: every write goes through a FileSystem, so that a test
// can put one in between that fails, crashes or forgets at the n-th operation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace emo {

// A file being written from its beginning. Calls: append and sync any number of times, then close
// at most once; nothing may follow close. Destroying it closes it without syncing, and without what
// has not reached it. Not thread-safe. Errors as of FileSystem; after one the file holds a part.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual absl::Status append(absl::string_view bytes) = 0;
  virtual absl::Status sync() = 0;  // all that was appended is on the disk
  virtual absl::Status close() = 0;
};

// kPrompt: what is appended stands in the file at once. kStreamed, for large files: it may be on
// its way until sync() or close(), and so may the report of its failure;
// data/files/streamed_file.h.
enum class Writing { kPrompt, kStreamed };

// Errors name the path and the system's reason: PermissionDenied (also where the folder is
// missing), AlreadyExists, ResourceExhausted (disk full), Unknown (I/O). Thread-safe for different
// paths.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Empties what stands there.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> create(const std::string& path,
                                                               Writing writing) = 0;
  // In one step; what stood at `to` is gone. After a crash it holds once sync_directory is done.
  virtual absl::Status rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status make_directories(const std::string& path) = 0;  // OK where they are
  virtual absl::Status sync_directory(const std::string& path) = 0;    // its list of names
  virtual absl::Status remove_all(const std::string& path) = 0;        // OK where nothing is
};

// Writes to `fd`, which it closes; `path` is for messages.
std::unique_ptr<WritableFile> descriptor_file(std::string path, int fd);

// The real one; it has no state, and the object lives as long as the process.
FileSystem& posix_file_system();

struct FileIdentity {
  uint64_t device = 0, inode = 0;
  bool operator==(const FileIdentity&) const = default;
};

// A file's bytes, mapped read-only. Movable; the view is valid while the object lives.
class MappedFile {
 public:
  // NotFound where it is missing or must not be read; Unknown for a folder and what cannot be
  // mapped; InvalidArgument for a pipe or a device. A file that becomes shorter while it is mapped
  // ends the process at the first byte that is gone.
  static absl::StatusOr<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::string_view bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // A descriptor of the same file; -1 where it cannot be opened so, or another file stands there.
  int open_again(int flags) const;

 private:
  MappedFile(std::string path, const char* data, size_t size, FileIdentity identity);
  std::string path_;
  const char* data_;
  size_t size_;
  FileIdentity identity_;
};

// Starts to read a part of a mapped file, and nothing around it: without this the system reads up
// to megabytes around the first byte that is looked at, which for an expert is its neighbours.
void will_read(absl::string_view mapped);

// Drops a part of a mapped file from memory; it is read again when it is next looked at. Only for
// bytes of a MappedFile.
void release_pages(absl::string_view mapped);

// The whole file. Errors as of MappedFile::open; DataLoss where it is larger than `max_bytes` (a
// cap against hostile input).
absl::StatusOr<std::string> read_file(const std::string& path, uint64_t max_bytes);

// Writes `path` so that after a crash it holds either what it held before or all of `contents`;
// what is not a file is written to (data/files/output.h).
absl::Status write_file_durably(FileSystem& fs, const std::string& path,
                                absl::string_view contents);

bool path_exists(const std::string& path);
bool is_directory(const std::string& path);

std::string parent_folder(const std::string& path);  // "." of a name alone
std::string file_name(const std::string& path);      // its last part

// Names (not paths) of a directory's entries, sorted. NotFound, or Unknown where it cannot be
// listed.
absl::StatusOr<std::vector<std::string>> list_directory(const std::string& path);

// Regular files under `path`, recursively, sorted by path; `path` itself where it is a file. Errors
// as of list_directory.
absl::StatusOr<std::vector<std::string>> list_files(const std::string& path);

// An absl error for the current errno: "<what> <path>: <reason>". REQUIRES: a call has just failed.
absl::Status errno_status(const std::string& what, const std::string& path);

}  // namespace emo
