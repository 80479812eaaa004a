#include "eval/bench/delayed_file.h"

#include <thread>
#include <utility>

namespace emo {
namespace {

class DelayedFile : public ReadableFile {
 public:
  DelayedFile(std::unique_ptr<ReadableFile> file, std::chrono::microseconds delay)
      : file_(std::move(file)), delay_(delay) {}
  const std::string& path() const override { return file_->path(); }
  int64_t size() const override { return file_->size(); }
  absl::Status read(int64_t begin, int64_t count, char* to) const override {
    std::this_thread::sleep_for(delay_);
    return file_->read(begin, count, to);
  }

 private:
  const std::unique_ptr<ReadableFile> file_;
  const std::chrono::microseconds delay_;
};

}  // namespace

OpenReadable opens_delayed(std::chrono::microseconds delay) {
  return [delay](const std::string& path) -> absl::StatusOr<std::unique_ptr<ReadableFile>> {
    absl::StatusOr<std::unique_ptr<ReadableFile>> file = open_readable(path);
    if (!file.ok()) return file.status();
    return std::make_unique<DelayedFile>(*std::move(file), delay);
  };
}

}  // namespace emo
