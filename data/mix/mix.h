// Which token files a run reads, in which order, and how much of each. The order of the list
// decides the order of chunks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace emo {

struct MixFile {
  std::string label;  // what the file is a part of: a domain
  std::string path;
};

// Files [first, end) of a mix as one source, of which a run takes its share.
struct MixSource {
  std::string label;
  size_t first = 0, end = 0;
  double weight = 0;      // of all sequences, in proportion to the others'
  double max_epochs = 0;  // how often a run may go through it; 0: as often as it needs
};

struct Mix {
  std::vector<MixFile> files;
  std::vector<MixSource> sources;  // in order of files, all of them; empty: no weights, every file
                                   // is read as often as any other
};

// What the paths of a mix are completed with.
struct MixNames {
  std::string root;       // before relative paths; "": the folder in which the mix file lies
  std::string tokenizer;  // in the place of {TOKENIZER}
};

// Whether a path is of a mix: it ends with .txt, .yaml or .yml.
bool is_mix(const std::string& path);

// A mix, as its name ends:
//   - .yaml, .yml: a list of sources {label, paths, weight | tokens, max_epochs}. `paths`: a path,
//     a pattern of a shell, or a list of them. All sources have a `weight`, or all have `tokens`,
//     which are weights too, or none has either
//   - else as OLMo-core writes it: lines "label,path", `#` begins a comment; a path may stand twice
//     and is then read twice
// InvalidArgument that lists every wrong line, or where there is none; NotFound without the file,
// or for a pattern without files.
absl::StatusOr<Mix> read_mix(const std::string& path, const MixNames& names);
absl::StatusOr<Mix> parse_mix_lines(const std::string& text, const std::string& path,
                                    const MixNames& names);

// The path of a file of a mix that lies at `mix`. InvalidArgument for {TOKENIZER} without a name.
absl::StatusOr<std::string> complete_path(const std::string& path, const std::string& mix,
                                          const MixNames& names);

// The files that a path, or a pattern of a shell (* ? [...]), stands for, by name; a path that
// exists stands for itself. Their label is the folder in which they lie. NotFound where there is
// none.
absl::StatusOr<std::vector<MixFile>> files_of_pattern(const std::string& pattern);

// How files are found: files_of_pattern, but in tests.
using FindFiles = std::function<absl::StatusOr<std::vector<MixFile>>(const std::string& pattern)>;

absl::StatusOr<Mix> parse_mix_yaml(const std::string& text, const std::string& path,
                                   const MixNames& names, const FindFiles& find = files_of_pattern);

// What fingerprints say of the weights; "" where there are none.
std::string fingerprint_text(const Mix& mix);

}  // namespace emo
