#include "data/files/block_file.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "data/files/file_lock.h"
#include "data/files/output.h"

namespace emo {
namespace {

constexpr int64_t kBlockBytes = 4096;
constexpr char kBlockMagic[] = "emoblock";
constexpr int64_t kFooter = 16;

uint32_t checksum_of(uint32_t before, absl::string_view bytes) {
  return static_cast<uint32_t>(::crc32(before, reinterpret_cast<const Bytef*>(bytes.data()),
                                       static_cast<uInt>(bytes.size())));
}

absl::string_view bytes_of(const std::vector<uint32_t>& checksums) {
  return {reinterpret_cast<const char*>(checksums.data()), checksums.size() * sizeof(uint32_t)};
}

absl::Status damaged(const std::string& path, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what, "; remove it, and it is made anew"));
}

}  // namespace

absl::Status BlockWriter::append(absl::string_view bytes) {
  absl::Status status = file_->append(bytes);
  while (!bytes.empty()) {
    const uint64_t room = kBlockBytes - size_ % kBlockBytes;
    const absl::string_view part = bytes.substr(0, room);
    checksum_ = checksum_of(checksum_, part);
    size_ += part.size();
    bytes.remove_prefix(part.size());
    if (size_ % kBlockBytes != 0) break;
    checksums_.push_back(checksum_);
    checksum_ = 0;
  }
  return status;
}

absl::Status BlockWriter::finish() {
  if (size_ % kBlockBytes != 0) checksums_.push_back(checksum_);
  absl::Status status = file_->append(bytes_of(checksums_));
  if (status.ok()) status = file_->append({kBlockMagic, 8});
  if (status.ok()) status = file_->append({reinterpret_cast<const char*>(&size_), sizeof size_});
  return status;
}

absl::StatusOr<BlockFile> BlockFile::open(const std::string& path, const OpenReadable& open) {
  absl::StatusOr<std::unique_ptr<ReadableFile>> opened = open(path);
  if (!opened.ok()) return opened.status();
  BlockFile file;
  file.file_ = *std::move(opened);
  const int64_t bytes = file.file_->size();
  char footer[kFooter] = "";
  absl::Status status =
      bytes < kFooter ? absl::OkStatus() : file.file_->read(bytes - kFooter, kFooter, footer);
  if (!status.ok()) return status;
  std::memcpy(&file.size_, footer + 8, sizeof file.size_);
  const bool possible = file.size_ >= 0 && file.size_ <= bytes;
  const int64_t blocks = possible ? (file.size_ + kBlockBytes - 1) / kBlockBytes : 0;
  const int64_t expected = file.size_ + blocks * 4 + kFooter;
  if (!possible || expected != bytes || std::memcmp(footer, kBlockMagic, 8) != 0) {
    return damaged(path, absl::StrCat(bytes, " bytes; truncated?"));
  }
  file.checksums_.resize(static_cast<size_t>(blocks));
  status =
      file.file_->read(file.size_, blocks * 4, reinterpret_cast<char*>(file.checksums_.data()));
  if (!status.ok()) return status;
  file.checked_ = std::make_unique<std::atomic<bool>[]>(static_cast<size_t>(blocks));
  return file;
}

absl::Status BlockFile::check_block(int64_t block) const {
  thread_local std::string bytes;
  const int64_t begin = block * kBlockBytes;
  bytes.resize(static_cast<size_t>(std::min(kBlockBytes, size_ - begin)));
  absl::Status status = file_->read(begin, static_cast<int64_t>(bytes.size()), bytes.data());
  if (!status.ok()) return status;
  if (checksum_of(0, bytes) != checksums_[block]) {
    return damaged(path(), absl::StrCat("bytes ", begin, " to ", begin + kBlockBytes,
                                        " are not what was written"));
  }
  checked_[block].store(true, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status BlockFile::read(int64_t begin, int64_t count, char* to) const {
  const int64_t end = begin + count;
  for (int64_t block = begin / kBlockBytes; block * kBlockBytes < end; ++block) {
    if (checked_[block].load(std::memory_order_relaxed)) continue;
    absl::Status status = check_block(block);
    if (!status.ok()) return status;
  }
  return file_->read(begin, count, to);
}

absl::StatusOr<BlockFile> find_or_make(const std::string& path,
                                       const std::function<absl::Status(BlockWriter*)>& make,
                                       const OpenReadable& open) {
  if (path_exists(path)) return BlockFile::open(path, open);
  const std::string folder = parent_folder(path);
  absl::Status status = posix_file_system().make_directories(folder);
  if (!status.ok()) return status;
  absl::StatusOr<FileLock> lock = FileLock::take(folder + "/.lock", FileLock::Held::kWait);
  if (!lock.ok()) return lock.status();
  if (path_exists(path)) return BlockFile::open(path, open);
  status = remove_left_overs(posix_file_system(), path);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      create_output(posix_file_system(), path, Writing::kStreamed);
  if (!file.ok()) return file.status();
  BlockWriter writer(file->get());
  status = make(&writer);
  if (status.ok()) status = writer.finish();
  if (status.ok()) status = (*file)->close();
  if (!status.ok()) return status;
  return BlockFile::open(path, open);
}

}  // namespace emo
