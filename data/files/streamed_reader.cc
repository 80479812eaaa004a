#include "data/files/streamed_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>

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

size_t size_of(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? static_cast<size_t>(info.st_size)
                                 : std::numeric_limits<size_t>::max();
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
    if (count < 0 && errno != EINVAL) return errno_status("cannot read", part.file->path());
    if (count < 0 && size_of(fd) > begin + got) {  // it has other blocks than ours
      will_read(part.bytes);
      return part.bytes;
    }
    if (count <= 0) {
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
  for (const auto& [file, source] : sources_) {
    if (source.fd >= 0) ::close(source.fd);
  }
}

const StreamedReader::Source& StreamedReader::source_of(const MappedFile* file) {
  const auto [entry, is_new] = sources_.try_emplace(file);
  Source& source = entry->second;
  if (is_new) {
    source.fd = file->open_again(O_RDONLY | O_CLOEXEC | O_DIRECT);
    struct stat info {};
    source.cache_is_known =
        source.fd >= 0 && ::fstat(source.fd, &info) == 0 &&
        (info.st_uid == ::geteuid() || ::access(file->path().c_str(), W_OK) == 0);
  }
  return source;
}

void StreamedReader::start_to_read() {
  const size_t i = given_;
  if (i == pieces_.size()) return;
  const Part& piece = pieces_[i];
  const bool worthwhile = piece.file != nullptr && piece.bytes.size() >= kWorthwhile;
  const Source source = worthwhile ? source_of(piece.file) : Source();
  if (source.fd < 0 || (source.cache_is_known && in_cache(piece.bytes))) {
    if (piece.file != nullptr) will_read(piece.bytes);
    reading_ = std::async(std::launch::deferred,
                          [&piece]() -> absl::StatusOr<absl::string_view> { return piece.bytes; });
    return;
  }
  AlignedBuffer& buffer = buffers_[i % 2];
  if (buffer == nullptr) buffer = aligned_buffer(kPiece + 2 * kDiskBlock);
  reading_ = std::async(std::launch::async, [&piece, fd = source.fd, to = buffer.get()] {
    return read_past_cache(fd, piece, to);
  });
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
