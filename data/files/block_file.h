// Files that the program makes for itself and reads at any place for weeks: what is read of them is
// what was written, or an error. Content; then a CRC-32 of every 4096 bytes of it, 4 bytes each;
// then "emoblock" and the content's length, 8 bytes each.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/files/file_system.h"
#include "data/files/readable_file.h"

namespace emo {

// Calls: append any number of times, then finish once. Errors as of WritableFile.
class BlockWriter {
 public:
  // REQUIRES: `file`, from its beginning on, outlives it.
  explicit BlockWriter(WritableFile* file) : file_(file) {}
  absl::Status append(absl::string_view bytes);
  absl::Status finish();

 private:
  WritableFile* file_;
  uint64_t size_ = 0;
  uint32_t checksum_ = 0;  // of the block that is not full
  std::vector<uint32_t> checksums_;
};

// Movable. Thread-safe.
class BlockFile {
 public:
  // DataLoss where it was cut, or is none.
  static absl::StatusOr<BlockFile> open(const std::string& path,
                                        const OpenReadable& open = open_readable);
  const std::string& path() const { return file_->path(); }
  int64_t size() const { return size_; }  // bytes of the content
  // As ReadableFile::read(); DataLoss too where bytes of the blocks around are not as written. A
  // block is checked the first time that it is read.
  absl::Status read(int64_t begin, int64_t count, char* to) const;

 private:
  BlockFile() = default;
  absl::Status check_block(int64_t block) const;

  std::unique_ptr<ReadableFile> file_;
  int64_t size_ = 0;
  std::vector<uint32_t> checksums_;
  std::unique_ptr<std::atomic<bool>[]> checked_;  // [blocks]
};

// Opens `path`; where nothing stands there, `make` writes its content first. Of many processes one
// makes it and the others wait, and say so; what a killed one has left is removed. Fails as `make`,
// FileSystem, FileLock and BlockFile::open().
absl::StatusOr<BlockFile> find_or_make(const std::string& path,
                                       const std::function<absl::Status(BlockWriter*)>& make,
                                       const OpenReadable& open = open_readable);

}  // namespace emo
