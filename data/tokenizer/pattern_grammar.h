// What regular expressions of tokenizers may hold. Hugging Face's `tokenizers` reads them with
// Oniguruma by Ruby's rules, we with PCRE2, and much that both accept means another thing to each:
// `[a&&b]`, `\h`, `a{,2}`, `(?m:.)`. Read here is what both mean alike, or what can be said to
// PCRE2 in other words; everything else is refused, by an allow-list:
//
//   pattern     (?i) at its very beginning, then branches between |
//   atom        a character; \ before ASCII punctuation; \t \n \r \f \a \e; \x41 (ASCII); \x{65e5};
//               . (all but \n); a class; a group
//   class       \s \S \d \D; \p{..} and \P{..} of the properties in unicode_properties.py; [..] and
//               [^..] of characters, ranges, \s, \d and \p{..}; a - only first, last or escaped
//   group       (..) (?:..) (?i:..), and around a place (?=..) (?!..), and behind it (?<=..)
//               (?<!..) of branches of characters and classes
//   anchor      ^ $ (of lines) \A \z \Z (of the text)
//   quantifier  * + ?, lazy with ? and, but for groups, possessive with + behind; {n} {n,}
//               {n,m}, lazy with ? behind the last two; one behind an atom, which matches something
//               where it may stand more than once
//
// Where case is ignored, letters are ASCII's and do not spell ss, st, ff, fi or fl, for which
// Oniguruma also takes the one character that folds to them.
//
// Refused for faults of PCRE2 10.42 alone, and found by a test of random patterns: (?>..), and
// groups with *+, ++ or ?+.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace emo {

// The same pattern in PCRE2's words, for PCRE2_UTF, PCRE2_UCP, PCRE2_MULTILINE and newlines that
// are LF. DataLoss naming what is refused, the byte at which it stands and what it would have
// meant. REQUIRES: `regex` is valid UTF-8.
absl::StatusOr<std::string> pcre2_pattern(absl::string_view regex);

}  // namespace emo
