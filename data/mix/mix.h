// Which token files a run reads, in which order. The order of the list decides the order of chunks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace emo {

struct MixFile {
  std::string label;  // what the file is a part of: a domain
  std::string path;
};

// What the paths of a mix are completed with.
struct MixNames {
  std::string root;       // before relative paths; "": the folder in which the mix file lies
  std::string tokenizer;  // in the place of {TOKENIZER}
};

// A mix as OLMo-core writes it: lines "label,path", `#` begins a comment, paths in order; a path
// may stand twice and is then read twice. InvalidArgument that lists every line that cannot be (no
// label, no path, {TOKENIZER} without a name), or where there is none; NotFound without the file.
absl::StatusOr<std::vector<MixFile>> read_mix(const std::string& path, const MixNames& names);

// The files that a path, or a pattern of a shell (* ? [...]), stands for, by name; their label is
// the folder in which they lie. NotFound where there is none.
absl::StatusOr<std::vector<MixFile>> files_of_pattern(const std::string& pattern);

}  // namespace emo
