#include "train/metrics/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

// Field numbers of tensorflow/core/util/event.proto and framework/summary.proto.
constexpr int kEventWallTime = 1, kEventStep = 2, kEventFileVersion = 3, kEventSummary = 5;
constexpr int kSummaryValue = 1, kValueTag = 1, kValueSimple = 2;
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}
void put_key(int field, WireType type, std::string* out) {
  put_varint(static_cast<uint64_t>(field) << 3 | type, out);
}
template <typename T>
void put_fixed(T value, std::string* out) {  // little-endian
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_bytes(int field, absl::string_view bytes, std::string* out) {
  put_key(field, kBytes, out);
  put_varint(bytes.size(), out);
  out->append(bytes.data(), bytes.size());
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

uint32_t masked_crc(absl::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

}  // namespace

uint32_t crc32c(absl::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> entries{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
      entries[i] = crc;
    }
    return entries;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

absl::StatusOr<TensorBoardWriter> TensorBoardWriter::create(FileSystem& fs,
                                                            const std::string& folder) {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  absl::StatusOr<std::unique_ptr<WritableFile>> file =
      fs.create(absl::StrCat(folder, "/events.out.tfevents.", static_cast<int64_t>(wall_time()),
                             ".", host, ".", ::getpid()),
                Writing::kPrompt);
  if (!file.ok()) return file.status();
  TensorBoardWriter writer(*std::move(file));
  std::string event;
  put_key(kEventWallTime, kFixed64, &event);
  put_fixed(wall_time(), &event);
  put_bytes(kEventFileVersion, "brain.Event:2", &event);
  absl::Status status = writer.record(event);
  if (!status.ok()) return status;
  return writer;
}

absl::Status TensorBoardWriter::scalar(const std::string& tag, int64_t step, double value) {
  std::string scalar;
  put_bytes(kValueTag, tag, &scalar);
  put_key(kValueSimple, kFixed32, &scalar);
  put_fixed(static_cast<float>(value), &scalar);
  std::string summary;
  put_bytes(kSummaryValue, scalar, &summary);
  std::string event;
  put_key(kEventWallTime, kFixed64, &event);
  put_fixed(wall_time(), &event);
  put_key(kEventStep, kVarint, &event);
  put_varint(static_cast<uint64_t>(step), &event);
  put_bytes(kEventSummary, summary, &event);
  return record(event);
}

absl::Status TensorBoardWriter::record(const std::string& event) {
  std::string length;
  put_fixed(static_cast<uint64_t>(event.size()), &length);
  std::string framed = length;
  put_fixed(masked_crc(length), &framed);
  framed += event;
  put_fixed(masked_crc(event), &framed);
  return file_->append(framed);
}

}  // namespace emo
