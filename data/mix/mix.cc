#include "data/mix/mix.h"

#include <glob.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "data/files/file_system.h"
#include "data/program/first_lines.h"

namespace emo {
namespace {

constexpr char kTokenizer[] = "{TOKENIZER}";
constexpr uint64_t kMostBytes = uint64_t{1} << 28;
constexpr uint64_t kMostYamlBytes = uint64_t{1} << 20;  // patterns take few lines
constexpr size_t kListed = 12;                          // wrong lines named in one message

// What is wrong with a line, "" where nothing is; else its file.
std::string read_line(absl::string_view line, const std::string& mix, const MixNames& names,
                      MixFile* file) {
  const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(',', 1));
  file->label = std::string(absl::StripAsciiWhitespace(parts[0]));
  const std::string path(parts.size() < 2 ? "" : absl::StripAsciiWhitespace(parts[1]));
  if (file->label.empty() || path.empty()) return "expected 'label,path'";
  absl::StatusOr<std::string> whole = complete_path(path, mix, names);
  if (!whole.ok()) return std::string(whole.status().message());
  file->path = *std::move(whole);
  return "";
}

}  // namespace

bool is_mix(const std::string& path) {
  return absl::EndsWith(path, ".txt") || absl::EndsWith(path, ".yaml") ||
         absl::EndsWith(path, ".yml");
}

absl::StatusOr<std::string> complete_path(const std::string& path, const std::string& mix,
                                          const MixNames& names) {
  if (absl::StrContains(path, kTokenizer) && names.tokenizer.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", kTokenizer, ": set data.tokenizer_name"));
  }
  std::string whole = absl::StrReplaceAll(path, {{kTokenizer, names.tokenizer}});
  if (absl::StartsWith(whole, "/")) return whole;
  return absl::StrCat(names.root.empty() ? parent_folder(mix) : names.root, "/", whole);
}

absl::StatusOr<Mix> read_mix(const std::string& path, const MixNames& names) {
  const bool is_yaml = absl::EndsWith(path, ".yaml") || absl::EndsWith(path, ".yml");
  absl::StatusOr<std::string> text = read_file(path, is_yaml ? kMostYamlBytes : kMostBytes);
  if (!text.ok()) return text.status();
  return is_yaml ? parse_mix_yaml(*text, path, names) : parse_mix_lines(*text, path, names);
}

absl::StatusOr<Mix> parse_mix_lines(const std::string& text, const std::string& path,
                                    const MixNames& names) {
  Mix mix;
  std::vector<std::string> wrong;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    MixFile file;
    const std::string why = read_line(line, path, names, &file);
    if (!why.empty()) wrong.push_back(absl::StrCat(path, ":", number, ": ", why));
    mix.files.push_back(std::move(file));
  }
  if (!wrong.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(first_lines(wrong, kListed), "\n"));
  }
  if (mix.files.empty()) return absl::InvalidArgumentError(path + ": a mix without files");
  return mix;
}

absl::StatusOr<std::vector<MixFile>> files_of_pattern(const std::string& pattern) {
  if (path_exists(pattern)) {  // whatever characters it has
    return std::vector<MixFile>{{file_name(parent_folder(pattern)), pattern}};
  }
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

std::string fingerprint_text(const Mix& mix) {
  std::string text;
  for (const MixSource& source : mix.sources) {
    absl::StrAppend(&text, " ", source.label, " ", source.end - source.first, " ",
                    absl::StrFormat("%.17g", source.weight));
  }
  return text;
}

}  // namespace emo
