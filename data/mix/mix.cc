#include "data/mix/mix.h"

#include <glob.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "data/files/file_system.h"

namespace emo {
namespace {

constexpr char kTokenizer[] = "{TOKENIZER}";
constexpr uint64_t kMostBytes = uint64_t{1} << 28;
constexpr size_t kListed = 12;  // wrong lines named in one message

// What is wrong with a line, "" where nothing is; else its file.
std::string read_line(absl::string_view line, const MixNames& names, const std::string& root,
                      MixFile* file) {
  const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(',', 1));
  file->label = std::string(absl::StripAsciiWhitespace(parts[0]));
  if (parts.size() < 2) return "expected 'label,path'";
  file->path = std::string(absl::StripAsciiWhitespace(parts[1]));
  if (file->label.empty() || file->path.empty()) return "expected 'label,path'";
  if (absl::StrContains(file->path, kTokenizer) && names.tokenizer.empty()) {
    return absl::StrCat("has ", kTokenizer, ": set data.tokenizer_name");
  }
  file->path = absl::StrReplaceAll(file->path, {{kTokenizer, names.tokenizer}});
  if (file->path[0] != '/') file->path = absl::StrCat(root, "/", file->path);
  return "";
}

}  // namespace

absl::StatusOr<std::vector<MixFile>> read_mix(const std::string& path, const MixNames& names) {
  absl::StatusOr<std::string> text = read_file(path, kMostBytes);
  if (!text.ok()) return text.status();
  const std::string root = names.root.empty() ? parent_folder(path) : names.root;
  std::vector<MixFile> files;
  std::vector<std::string> wrong;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    MixFile file;
    const std::string why = read_line(line, names, root, &file);
    if (!why.empty()) wrong.push_back(absl::StrCat(path, ":", number, ": ", why));
    files.push_back(std::move(file));
  }
  if (wrong.size() > kListed) {
    const size_t more = wrong.size() - kListed;
    wrong.resize(kListed);
    wrong.push_back(absl::StrCat("and ", more, " more"));
  }
  if (!wrong.empty()) return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
  if (files.empty()) return absl::InvalidArgumentError(path + ": a mix without files");
  return files;
}

absl::StatusOr<std::vector<MixFile>> files_of_pattern(const std::string& pattern) {
  glob_t found{};
  const int code = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<MixFile> files;
  for (size_t i = 0; code == 0 && i < found.gl_pathc; ++i) {
    const std::string path = found.gl_pathv[i];
    files.push_back({file_name(parent_folder(path)), path});
  }
  ::globfree(&found);
  if (files.empty()) return absl::NotFoundError(pattern + ": no such file");
  return files;
}

}  // namespace emo
