#include "data/shards/data_file.h"

#include <algorithm>
#include <vector>

#include "data/files/file_system.h"
#include "data/files/sha256.h"

namespace emo {
namespace {

constexpr int64_t kSampled = 1024;  // ids at each place

}  // namespace

absl::StatusOr<std::string> sampled_ids(const TokenFile& file) {
  const int64_t count = std::min(kSampled, file.tokens());
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::string bytes, sample;
  for (const int64_t begin : {int64_t{0}, (file.tokens() - count) / 2, file.tokens() - count}) {
    // Any id: those that are read in training are looked at there.
    absl::Status status = file.read(begin, count, INT64_MAX, ids.data(), &bytes);
    if (!status.ok()) return status;
    sample.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
  }
  return sample;
}

std::string sample_of(const std::string& bytes) { return sha256_hex(bytes).substr(0, 16); }

DataFile mark_of(const TokenFile& file, const std::string& ids) {
  return {file_name(file.path()), file.tokens(), sample_of(ids)};
}

}  // namespace emo
