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

// One compiled pattern: what Hugging Face's `tokenizers` means by it
// (data/tokenizer/pattern_grammar.h), matches of nothing included, which cut where they stand.
class SplitPattern {
 public:
  enum class Behavior { kIsolated, kRemoved };

  // DataLoss naming the place for a pattern that is refused.
  static absl::StatusOr<SplitPattern> compile(const std::string& regex, Behavior behavior,
                                              bool invert);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  // Appends the pieces of `text`: views into it, in order. Thread-safe. DataLoss where a match
  // takes more steps or memory than any text of a tokenizer that works should: what was appended is
  // then a part. REQUIRES: `text` is valid UTF-8.
  absl::Status split(absl::string_view text, std::vector<absl::string_view>* pieces) const;

 private:
  SplitPattern();
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

class PreTokenizer {
 public:
  // `json` is the value of "pre_tokenizer": ByteLevel, Split with a Regex, or a Sequence of these.
  // DataLoss naming the part for anything that would change the result and is not supported.
  static absl::StatusOr<PreTokenizer> from_json(const Json& json, const std::string& where);

  // As SplitPattern::split, by all patterns.
  absl::Status split(absl::string_view text, std::vector<absl::string_view>* words) const;

 private:
  absl::Status add(const Json& json, const std::string& where);
  std::vector<SplitPattern> patterns_;  // applied one after another, each within the pieces so far
  bool byte_level_ = false;
};

}  // namespace emo
