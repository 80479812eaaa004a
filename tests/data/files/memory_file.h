// A file that a test has made up.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "data/files/readable_file.h"

namespace emo {

// Ends the process where what is read does not lie in the file: a reader must ask for nothing else.
class MemoryFile : public ReadableFile {
 public:
  explicit MemoryFile(std::string bytes) : bytes_(std::move(bytes)) {}
  const std::string& path() const override { return path_; }
  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
  absl::Status read(int64_t begin, int64_t count, char* to) const override {
    if (begin < 0 || count < 0 || begin > size() - count) std::abort();
    std::memcpy(to, bytes_.data() + begin, static_cast<size_t>(count));
    return absl::OkStatus();
  }

 private:
  const std::string path_ = "file";
  const std::string bytes_;
};

inline OpenReadable opens(const std::string& bytes) {
  return [bytes](const std::string&) { return std::make_unique<MemoryFile>(bytes); };
}

// The next number of an input, 0 behind its end.
inline uint8_t take(const uint8_t** data, size_t* size) {
  if (*size == 0) return 0;
  --*size;
  return *(*data)++;
}

}  // namespace emo
