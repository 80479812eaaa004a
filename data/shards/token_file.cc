#include "data/shards/token_file.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "data/shards/npy_header.h"

namespace emo {
namespace {

// Widens ids; answers the largest, as the unsigned number that its bits are.
template <typename Id>
uint64_t widen_ids(const char* from, int64_t count, int32_t* to) {
  Id largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, from + static_cast<size_t>(i) * sizeof(Id), sizeof(Id));
    largest = std::max(largest, id);
    to[i] = static_cast<int32_t>(id);
  }
  return largest;
}

uint64_t id_at(const char* from, int64_t width) {
  uint64_t id = 0;
  std::memcpy(&id, from, static_cast<size_t>(width));
  return id;
}

}  // namespace

const std::vector<std::string>& id_type_names() {
  static const std::vector<std::string> names = {"by_vocabulary", "uint8", "uint16", "uint32",
                                                 "uint64"};
  return names;
}

int64_t first_beyond(int64_t vocab_size, const int32_t* tokens, int64_t count) {
  return std::find_if(tokens, tokens + count,
                      [vocab_size](int32_t token) {
                        return static_cast<int64_t>(static_cast<uint32_t>(token)) >= vocab_size;
                      }) -
         tokens;
}

int64_t token_width(IdType type, int64_t vocab_size) {
  switch (type) {
    case IdType::kUint8:
      return 1;
    case IdType::kUint16:
      return 2;
    case IdType::kUint32:
      return 4;
    case IdType::kUint64:
      return 8;
    case IdType::kByVocabulary:
      break;
  }
  if (vocab_size <= int64_t{1} << 8) return 1;
  return vocab_size <= int64_t{1} << 16 ? 2 : 4;
}

absl::StatusOr<TokenFile> TokenFile::open_headerless(const std::string& path, int64_t width,
                                                     const OpenReadable& open) {
  absl::StatusOr<std::unique_ptr<ReadableFile>> file = open(path);
  if (!file.ok()) return file.status();
  TokenFile tokens;
  tokens.file_ = *std::move(file);
  tokens.width_ = width;
  tokens.tokens_ = tokens.file_->size() / width;
  return tokens;
}

absl::StatusOr<TokenFile> TokenFile::open(const std::string& path, int64_t width,
                                          const OpenReadable& open) {
  absl::StatusOr<TokenFile> opened = open_headerless(path, width, open);
  if (!opened.ok()) return opened;
  TokenFile tokens = *std::move(opened);
  const int64_t size = tokens.file_->size();
  std::string first(static_cast<size_t>(std::min<int64_t>(size, 16)), '\0');
  absl::Status status = tokens.file_->read(0, static_cast<int64_t>(first.size()), first.data());
  if (!status.ok()) return status;
  if (begins_as_npy(first)) {
    first.resize(static_cast<size_t>(std::min(size, kMostNpyHeader)));
    status = tokens.file_->read(0, static_cast<int64_t>(first.size()), first.data());
    if (!status.ok()) return status;
    absl::StatusOr<NpyHeader> header = parse_npy_header(first, path);
    if (!header.ok()) return header.status();
    tokens.begin_ = header->size;
    tokens.width_ = header->width;
    tokens.tokens_ = header->count;
    if (header->count > (size - header->size) / header->width ||
        header->size + header->count * header->width != size) {
      return absl::DataLossError(absl::StrCat(path, ": ", size, " bytes, its header says ",
                                              header->count, " ids of ", header->width,
                                              " bytes; truncated?"));
    }
    return tokens;
  }
  if (size % width != 0) {
    return absl::DataLossError(absl::StrCat(path, ": ", size,
                                            " bytes are no whole number of ids of ", width,
                                            "; truncated, or data.dtype is another"));
  }
  return tokens;
}

absl::Status TokenFile::read(int64_t begin, int64_t count, int64_t vocab_size, int32_t* tokens,
                             std::string* bytes) const {
  bytes->resize(static_cast<size_t>(count * width_));
  absl::Status status = file_->read(begin_ + begin * width_, count * width_, bytes->data());
  if (!status.ok()) {
    std::fill_n(tokens, count, 0);  // for who looks for an id that is wrong
    return status;
  }
  const uint64_t largest = width_ == 1   ? widen_ids<uint8_t>(bytes->data(), count, tokens)
                           : width_ == 2 ? widen_ids<uint16_t>(bytes->data(), count, tokens)
                           : width_ == 4 ? widen_ids<uint32_t>(bytes->data(), count, tokens)
                                         : widen_ids<uint64_t>(bytes->data(), count, tokens);
  if (count == 0 || largest < static_cast<uint64_t>(vocab_size)) return absl::OkStatus();
  int64_t at = 0;
  while (id_at(bytes->data() + at * width_, width_) < static_cast<uint64_t>(vocab_size)) ++at;
  return absl::DataLossError(absl::StrCat(
      path(), ": token ", id_at(bytes->data() + at * width_, width_), " at offset ", begin + at,
      ", expected below the vocabulary's ", vocab_size, "; is data.dtype right?"));
}

}  // namespace emo
