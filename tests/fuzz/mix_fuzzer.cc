// Lists of token files, in both formats. Patterns find what they say, without a disk.
#include "data/mix/mix.h"
#include "tests/data/files/memory_file.h"

namespace {

absl::StatusOr<std::vector<emo::MixFile>> any_file(const std::string& pattern) {
  if (pattern.size() % 5 == 0) return absl::NotFoundError(pattern);
  return std::vector<emo::MixFile>{{"folder", pattern}, {"folder", pattern + "2"}};
}

void check(const absl::StatusOr<emo::Mix>& mix) {
  if (!mix.ok()) {
    if (mix.status().message().empty()) std::abort();
    return;
  }
  if (mix->files.empty()) std::abort();
  size_t next = 0;
  for (const emo::MixSource& source : mix->sources) {
    if (source.first != next || source.end <= source.first || !(source.weight > 0)) std::abort();
    next = source.end;
  }
  if (!mix->sources.empty() && next != mix->files.size()) std::abort();
  for (const emo::MixFile& file : mix->files) {
    if (file.label.empty() || file.path.empty()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const bool has_name = emo::take(&data, &size) % 2 == 0;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const emo::MixNames names{"", has_name ? "tokenizer" : ""};
  check(emo::parse_mix_lines(text, "folder/mix.txt", names));
  check(emo::parse_mix_yaml(text, "folder/mix.yaml", names, any_file));
  return 0;
}
