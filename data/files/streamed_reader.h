// Reads parts of files once, one after another, at the disk's own rate: past the system's cache
// (O_DIRECT) where the file system can, through the same two buffers, and each piece while the
// caller works on the one before. Through the cache, every page would first have to be found, and
// would push out one that others will read again. What is small, or in the cache already, or on a
// file system without O_DIRECT, is read as it is mapped.
#pragma once

#include <future>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/aligned_buffer.h"
#include "data/files/file_system.h"

namespace emo {

class StreamedReader {
 public:
  struct Part {
    const MappedFile* file;   // must live as long as the reader; null: the bytes are in memory
    absl::string_view bytes;  // of the file
  };
  // REQUIRES: each part's bytes are its file's.
  explicit StreamedReader(const std::vector<Part>& parts);
  StreamedReader(const StreamedReader&) = delete;
  StreamedReader& operator=(const StreamedReader&) = delete;
  ~StreamedReader();

  // The next bytes, at most kPiece of them and those of one part, valid until the next call; every
  // byte of every part comes once. Unknown where the disk fails, DataLoss where the file has become
  // shorter (but as with all mapped files, reading what was mapped then ends the process).
  // REQUIRES: bytes are left, and no call failed.
  absl::StatusOr<absl::string_view> next();

  static constexpr size_t kPiece = 16 << 20;  // bytes

 private:
  struct Source {
    int fd = -1;                  // for reading past the cache; -1: to be read as it is mapped
    bool cache_is_known = false;  // the system says to others than owners that all is cached
  };
  const Source& source_of(const MappedFile* file);
  void start_to_read();

  std::vector<Part> pieces_;
  size_t given_ = 0;  // pieces that the caller got
  std::map<const MappedFile*, Source> sources_;
  AlignedBuffer buffers_[2];  // of piece i: i modulo 2
  std::future<absl::StatusOr<absl::string_view>> reading_;
};

}  // namespace emo
