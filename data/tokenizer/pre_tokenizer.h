// The step before BPE: cuts text into words that no merge may cross, by the regular expressions
// that a Hugging Face tokenizer.json names.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/files/json.h"

namespace emo {

// One compiled pattern. Hugging Face runs Oniguruma with Ruby's rules, we run PCRE2: `\s` and `\S`
// are rewritten to Unicode's White_Space (PCRE2's own differ by U+180E), `\p{L}` and its like are
// extended by characters younger than PCRE2's tables, `$` ends lines, and `{n,m}+`, greedy there
// and possessive here, is refused.
class SplitPattern {
 public:
  enum class Behavior { kIsolated, kRemoved };

  static absl::StatusOr<SplitPattern> compile(const std::string& regex, Behavior behavior,
                                              bool invert);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  // Appends the pieces of `text` (valid UTF-8): views into it, in order. Thread-safe.
  absl::Status split(absl::string_view text, std::vector<absl::string_view>* pieces) const;

 private:
  SplitPattern();
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

class PreTokenizer {
 public:
  // `json` is the value of "pre_tokenizer": ByteLevel, Split with a Regex, or a Sequence of these.
  // InvalidArgument naming the part for anything that would change the result and is not supported.
  static absl::StatusOr<PreTokenizer> from_json(const Json& json, const std::string& where);

  absl::Status split(absl::string_view text, std::vector<absl::string_view>* words) const;

 private:
  absl::Status add(const Json& json, const std::string& where);
  std::vector<SplitPattern> patterns_;  // applied one after another, each within the pieces so far
  bool byte_level_ = false;
};

}  // namespace emo
