#include "launch/sweep/run_files.h"

#include <algorithm>
#include <fstream>

namespace emo {

std::string tail_of(const std::string& path, int64_t most) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const auto size = static_cast<int64_t>(file.tellg());
  std::string text(static_cast<size_t>(std::min(size, most)), '\0');
  file.seekg(size - static_cast<int64_t>(text.size()));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

int64_t size_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  return file ? static_cast<int64_t>(file.tellg()) : 0;
}

}  // namespace emo
