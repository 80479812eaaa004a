// TensorBoard event files, scalars only: records as TensorFlow's record_writer.cc frames them, the
// few protobuf fields of Event and Summary encoded by hand (ecosystem: no protobuf needed for
// this).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/file_system.h"

namespace emo {

class TensorBoardWriter {
 public:
  // Creates `folder`/events.out.tfevents.<seconds>.<host>.<pid>; the folder must exist.
  static absl::StatusOr<TensorBoardWriter> create(FileSystem& fs, const std::string& folder);

  absl::Status scalar(const std::string& tag, int64_t step, double value);

 private:
  explicit TensorBoardWriter(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  absl::Status record(const std::string& event);
  std::unique_ptr<WritableFile> file_;
};

// CRC-32C (Castagnoli) of bytes.
uint32_t crc32c(absl::string_view bytes);

}  // namespace emo
