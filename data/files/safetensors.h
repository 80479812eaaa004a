// safetensors files (https://github.com/huggingface/safetensors, "Format"): eight bytes of header
// length, a JSON header {name: {dtype, shape, data_offsets}}, the tensors' bytes without holes.
// The reader trusts nothing: every offset is checked before a byte is handed out.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "data/files/sha256.h"

namespace emo {

struct TensorRecord {
  std::string dtype;                 // "F32", "BF16", "I32", "I64", ...
  std::vector<int64_t> shape;        //
  absl::string_view bytes;           // little-endian, row-major; points into the file
  const MappedFile* file = nullptr;  // null: in memory
};

// An open file and the records in it. Movable; records are valid while it lives.
class SafetensorsFile {
 public:
  // DataLoss for anything that the format forbids: header past the end or above 100 MB, unknown
  // dtype, size that does not fit the shape, overlapping or missing bytes, duplicate names. Errors
  // as of MappedFile::open.
  static absl::StatusOr<SafetensorsFile> open(const std::string& path);

  const std::map<std::string, TensorRecord>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return file_->path(); }

  // NotFound, or DataLoss where dtype or shape differ, naming found and expected.
  absl::StatusOr<TensorRecord> find(const std::string& name, const std::string& dtype,
                                    const std::vector<int64_t>& shape) const;

 private:
  explicit SafetensorsFile(MappedFile file)
      : file_(std::make_unique<MappedFile>(std::move(file))) {}
  absl::Status parse();
  std::unique_ptr<MappedFile> file_;  // records point to it
  std::map<std::string, TensorRecord> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  absl::string_view bytes;  // must stay valid until the file is written
};

struct WrittenFile {
  std::string name;  // without folder
  uint64_t size = 0;
  std::string sha256;
};

// A file written tensor by tensor, so that a model need not be in memory: all names and shapes
// first, then the bytes in that order, in pieces of any size. Calls: create or start, append,
// finish once; nothing may follow finish or an error.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t bytes() const;
  };
  // Errors as of FileSystem. REQUIRES: the entries' dtypes are known (dtype_size).
  static absl::StatusOr<SafetensorsWriter> create(
      FileSystem& fs, const std::string& folder, const std::string& name,
      const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata);
  // The same into `file`, of which nothing is written yet.
  static absl::StatusOr<SafetensorsWriter> start(
      std::unique_ptr<WritableFile> file, const std::string& name,
      const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata);
  absl::Status append(absl::string_view bytes);
  // Syncs and closes. Internal where the bytes are not as many as the entries say. Last call.
  absl::StatusOr<WrittenFile> finish();

 private:
  static constexpr size_t kHashedBeside = 1 << 20;  // bytes that are worth a thread
  SafetensorsWriter() = default;
  std::unique_ptr<WritableFile> file_;
  std::string name_;
  Sha256 hash_;
  uint64_t size_ = 0, expected_ = 0;
};

// Writes and syncs `folder/name`, tensors in the given order. The same input gives the same bytes.
absl::StatusOr<WrittenFile> write_safetensors(FileSystem& fs, const std::string& folder,
                                              const std::string& name,
                                              const std::vector<NamedTensor>& tensors,
                                              const std::map<std::string, std::string>& metadata);

// The same as a command's output: data/files/output.h.
absl::Status write_safetensors_output(FileSystem& fs, const std::string& path,
                                      const std::vector<NamedTensor>& tensors,
                                      const std::map<std::string, std::string>& metadata);

// Bytes of one element, or 0 for a dtype that the format does not know.
int64_t dtype_size(const std::string& dtype);

// "[2, 3]"
std::string shape_string(const std::vector<int64_t>& shape);

}  // namespace emo
