#include "data/streamed_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr size_t kWorthwhile = 1 << 20;  // bytes; fewer are read as they are mapped

// Whether more than half of the pages are in the cache.
bool in_cache(absl::string_view mapped) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(mapped.data());
  const uintptr_t begin = address / page * page;
  const uintptr_t bytes = address + mapped.size() - begin;
  std::vector<unsigned char> resident((bytes + page - 1) / page);
  if (::mincore(reinterpret_cast<void*>(begin), bytes, resident.data()) != 0) return false;
  const auto count =
      std::count_if(resident.begin(), resident.end(), [](unsigned char r) { return (r & 1) != 0; });
  return static_cast<size_t>(count) > resident.size() / 2;
}

// The part's bytes in `buffer`, which has room for a block more at both ends.
absl::StatusOr<absl::string_view> read_past_cache(int fd, const StreamedReader::Part& part,
                                                  char* buffer) {
  const auto offset = static_cast<size_t>(part.bytes.data() - part.file->bytes().data());
  const size_t begin = offset / kDiskBlock * kDiskBlock;
  const size_t needed = offset + part.bytes.size() - begin;
  const size_t blocks = (needed + kDiskBlock - 1) / kDiskBlock * kDiskBlock;
  for (size_t got = 0; got < needed;) {
    const ssize_t count = ::pread(fd, buffer + got, blocks - got, static_cast<off_t>(begin + got));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EINVAL) return part.bytes;  // other blocks than ours
    if (count < 0) return errno_status("cannot read", part.file->path());
    if (count == 0) {
      return absl::DataLossError(
          absl::StrCat(part.file->path(), ": ends at byte ", begin + got, " by now"));
    }
    got += static_cast<size_t>(count);
  }
  return absl::string_view(buffer + (offset - begin), part.bytes.size());
}

}  // namespace

StreamedReader::StreamedReader(const std::vector<Part>& parts) {
  for (const Part& part : parts) {
    for (size_t begin = 0; begin < part.bytes.size(); begin += kPiece) {
      pieces_.push_back({part.file, part.bytes.substr(begin, kPiece)});
    }
  }
  start_to_read();
}

StreamedReader::~StreamedReader() {
  if (reading_.valid()) reading_.wait();
  for (const auto& [file, fd] : descriptors_) {
    if (fd >= 0) ::close(fd);
  }
}

int StreamedReader::descriptor_of(const MappedFile* file) {
  const auto [entry, is_new] = descriptors_.try_emplace(file, -1);
  if (is_new) entry->second = file->open_again(O_RDONLY | O_CLOEXEC | O_DIRECT);
  return entry->second;
}

void StreamedReader::start_to_read() {
  const size_t i = given_;
  if (i == pieces_.size()) return;
  const Part& piece = pieces_[i];
  const bool worthwhile =
      piece.file != nullptr && piece.bytes.size() >= kWorthwhile && !in_cache(piece.bytes);
  const int fd = worthwhile ? descriptor_of(piece.file) : -1;
  if (fd < 0) {
    if (piece.file != nullptr) will_read(piece.bytes);
    reading_ = std::async(std::launch::deferred,
                          [&piece]() -> absl::StatusOr<absl::string_view> { return piece.bytes; });
    return;
  }
  AlignedBuffer& buffer = buffers_[i % 2];
  if (buffer == nullptr) buffer = aligned_buffer(kPiece + 2 * kDiskBlock);
  reading_ = std::async(std::launch::async,
                        [fd, &piece, to = buffer.get()] { return read_past_cache(fd, piece, to); });
}

absl::StatusOr<absl::string_view> StreamedReader::next() {
  // What was read as it is mapped is not needed any more.
  if (given_ > 0 && pieces_[given_ - 1].file != nullptr) release_pages(pieces_[given_ - 1].bytes);
  absl::StatusOr<absl::string_view> piece = reading_.get();
  ++given_;
  if (piece.ok()) start_to_read();
  return piece;
}

}  // namespace emo
