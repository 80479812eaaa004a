#include "data/files/streamed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <utility>

#include "data/files/aligned_buffer.h"

namespace emo {
namespace {

constexpr size_t kPiece = 8 << 20;  // bytes that go to the disk at once

class StreamedFile : public WritableFile {
 public:
  StreamedFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {
    past_cache_ = set_past_cache(true);
  }
  ~StreamedFile() override {
    if (writing_.valid()) writing_.wait();
    if (fd_ >= 0) ::close(fd_);
  }
  StreamedFile(const StreamedFile&) = delete;
  StreamedFile& operator=(const StreamedFile&) = delete;

  absl::Status append(absl::string_view bytes) override {
    while (!bytes.empty()) {
      if (filling_ == nullptr) filling_ = aligned_buffer(kPiece);
      const size_t count = std::min(bytes.size(), kPiece - filled_);
      std::memcpy(filling_.get() + filled_, bytes.data(), count);
      filled_ += count;
      bytes.remove_prefix(count);
      if (filled_ < kPiece) continue;
      absl::Status status = start_to_write();
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  absl::Status sync() override {
    absl::Status status = flush();
    if (status.ok() && ::fsync(fd_) != 0) status = errno_status("cannot sync", path_);
    return status;
  }
  absl::Status close() override {
    absl::Status status = flush();
    if (::close(std::exchange(fd_, -1)) != 0) status.Update(errno_status("cannot close", path_));
    return status;
  }

 private:
  bool set_past_cache(bool on) {
    const int flags = ::fcntl(fd_, F_GETFL);
    return ::fcntl(fd_, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0 && on;
  }

  // For the piece on its way. What failed once fails ever after: there is a hole in the file.
  absl::Status wait() {
    if (writing_.valid()) failed_.Update(writing_.get());
    return failed_;
  }

  // Hands the filled buffer to a thread, once that is done with the other.
  absl::Status start_to_write() {
    absl::Status status = wait();
    if (!status.ok()) return status;
    std::swap(filling_, leaving_);
    const size_t count = std::exchange(filled_, 0);
    writing_ = std::async(std::launch::async, [this, count] {
      return write({leaving_.get(), count});
    });
    return absl::OkStatus();
  }

  // What is left need not end with a block, so it goes through the cache, as does all that may
  // follow.
  absl::Status flush() {
    absl::Status status = wait();
    if (!status.ok() || filled_ == 0) return status;
    past_cache_ = set_past_cache(false);
    failed_ = write({filling_.get(), std::exchange(filled_, 0)});
    return failed_;
  }

  absl::Status write(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      // Some file systems take the flag, and then not the write; and a part of a piece may not end
      // with a block.
      if (written < 0 && errno == EINVAL && past_cache_) {
        past_cache_ = set_past_cache(false);
        continue;
      }
      if (written < 0) return errno_status("cannot write", path_);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    // What went through the cache all the same: the disk begins now, or sync() waits for all of it.
    sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);  // advice
    return absl::OkStatus();
  }

  std::string path_;
  int fd_;
  bool past_cache_;
  AlignedBuffer filling_, leaving_;  // [kPiece] each
  size_t filled_ = 0;                // bytes of filling_
  std::future<absl::Status> writing_;
  absl::Status failed_;
};

}  // namespace

std::unique_ptr<WritableFile> streamed_file(std::string path, int fd) {
  return std::make_unique<StreamedFile>(std::move(path), fd);
}

}  // namespace emo
