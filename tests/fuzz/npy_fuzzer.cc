// Token files, with and without a header: whatever opens is read from end to end.
#include <algorithm>
#include <vector>

#include "data/shards/data_file.h"
#include "data/shards/npy_header.h"
#include "data/shards/token_file.h"
#include "tests/data/files/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int64_t width = int64_t{1} << (emo::take(&data, &size) % 4);
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto header = emo::parse_npy_header(bytes, "file");
  if (header.ok() && (header->size < 0 || header->count < 0 || header->width < 1)) std::abort();
  const auto file = emo::TokenFile::open("file", width, emo::opens(bytes));
  if (!file.ok()) return 0;
  if (file->tokens() > static_cast<int64_t>(size)) std::abort();
  emo::sampled_ids(*file).IgnoreError();
  std::vector<int32_t> ids(static_cast<size_t>(file->tokens()));
  std::string scratch;
  const bool good = file->read(0, file->tokens(), 1000, ids.data(), &scratch).ok();
  if (good &&
      std::any_of(ids.begin(), ids.end(), [](int32_t id) { return id < 0 || id >= 1000; })) {
    std::abort();
  }
  return 0;
}
