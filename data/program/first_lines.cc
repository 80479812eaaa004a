#include "data/program/first_lines.h"

#include "absl/strings/str_cat.h"

namespace emo {

std::vector<std::string> first_lines(std::vector<std::string> lines, size_t most) {
  if (lines.size() <= most) return lines;
  const size_t more = lines.size() - most;
  lines.resize(most);
  lines.push_back(absl::StrCat("and ", more, " more"));
  return lines;
}

}  // namespace emo
