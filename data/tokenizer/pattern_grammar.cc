#include "data/tokenizer/pattern_grammar.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/tokenizer/utf8.h"
#include "data/unicode_properties.h"

namespace emo {
namespace {

constexpr char kWhiteSpace[] = R"(\p{Z}\x{09}-\x{0d}\x{85})";  // Unicode's White_Space property
constexpr uint32_t kMostRepeats = 65535;                       // PCRE2 counts no further

struct Refusal {
  const char* text;  // what it begins with
  const char* why;
};

// Why escapes are refused that people write. `\` before another letter or digit has no meaning.
constexpr Refusal kEscapes[] = {
    {"\\h", "a hex digit to Oniguruma, a blank to PCRE2"},
    {"\\H", "all but a hex digit to Oniguruma, all but a blank to PCRE2"},
    {"\\w", "a character of words, of which Oniguruma and PCRE2 know other ones"},
    {"\\W", "a character outside words, of which Oniguruma and PCRE2 know other ones"},
    {"\\b", "an edge of a word, whose characters Oniguruma and PCRE2 do not agree on"},
    {"\\B", "a place inside a word, whose characters Oniguruma and PCRE2 do not agree on"},
    {"\\v", "one character (U+000B) to Oniguruma, a class to PCRE2"},
    {"\\V", "has a meaning to PCRE2 only"},
    {"\\R", "an end of a line, of which Oniguruma and PCRE2 know other ones"},
    {"\\X", "a grapheme cluster, which depends on the version of Unicode"},
    {"\\N", "has a meaning to PCRE2 inside braces only"},
    {"\\O", "any character to Oniguruma, an error to PCRE2"},
    {"\\K", "moves the beginning of the match"},
    {"\\G", "where the search began"},
    {"\\y", "an edge of a grapheme cluster to Oniguruma"},
    {"\\Y", "a place inside a grapheme cluster to Oniguruma"},
    {"\\u", "write \\x{..} for a character by its number"},
    {"\\x", "write \\x{..} for a character by its number"},
    {"\\o", "write \\x{..} for a character by its number"},
    {"\\c", "write \\x{..} for a character by its number"},
    {"\\C", "a control character to Oniguruma, a byte to PCRE2"},
    {"\\M", "a byte with its high bit to Oniguruma, an error to PCRE2"},
    {"\\Q", "a letter to Oniguruma, the beginning of a quotation to PCRE2"},
    {"\\E", "a letter to Oniguruma, the end of a quotation to PCRE2"},
    {"\\g", "a call of a group"},
    {"\\k", "what another group matched"},
    {"\\p", "a property, written \\p{NAME}"},
    {"\\P", "a property, written \\P{NAME}"},
};

// Why groups are refused.
constexpr Refusal kGroups[] = {
    {"(?i)", "ignores case from here on, also of other branches to Oniguruma; write (?i:..)"},
    {"(?m", "lets . take ends of lines to Oniguruma, ^ and $ match there to PCRE2"},
    {"(?x", "lets blanks and comments stand in the pattern"},
    {"(?s", "an error to Oniguruma, lets . take ends of lines to PCRE2"},
    {"(?-", "takes an option back"},
    {"(?#", "a comment"},
    {"(?>", "keeps its first way through, which PCRE2's compiled code (10.42) does not always"},
    {"(?~", "all texts without one to Oniguruma, an error to PCRE2"},
    {"(?(", "a condition"},
    {"(?<", "a group with a name"},
    {"(?'", "a group with a name"},
    {"(?P", "an error to Oniguruma, a group with a name to PCRE2"},
    {"(?|", "an error to Oniguruma, groups with the same number to PCRE2"},
    {"(*", "a verb or a callout"},
};

bool is_ascii(uint32_t c) { return c < 0x80; }
bool is_punctuation(uint32_t c) { return is_ascii(c) && std::ispunct(static_cast<int>(c)) != 0; }

// Whether `c` has no other case, nor is part of what has one: ASCII, and the block of dashes,
// quotation marks and special blanks.
bool has_known_case(uint32_t c) { return is_ascii(c) || (c >= 0x2000 && c <= 0x206F); }

// How often something may stand.
struct Interval {
  uint32_t least, most;
  bool is_fixed = false;  // written {n}
};

class PatternReader {
 public:
  explicit PatternReader(absl::string_view regex) : regex_(regex) {}

  absl::StatusOr<std::string> read() {
    if (take("(?i)")) {
      ignores_case_ = true;
      out_ = "(?i)";
    }
    absl::Status status;
    while (status.ok() && at_ < regex_.size()) status = read_part();
    if (status.ok() && !groups_.empty()) status = refuse(groups_.back().open, 1, "has no ')'");
    if (!status.ok()) return status;
    return std::move(out_);
  }

 private:
  // What of a group, or of the whole pattern, is read so far.
  struct Branches {
    bool last_is_empty = true;  // the last branch may match nothing
    bool one_is_empty = false;  // so may one before it
  };
  struct Group {
    size_t open;        // its place
    bool repeats;       // it may have a quantifier
    bool ignored_case;  // before it
    bool looks_behind;
    Branches around;  // it
  };

  // For the `count` bytes at `place`.
  absl::Status refuse(size_t place, size_t count, absl::string_view why) const {
    const auto continues = [&](size_t at) {  // within a character
      return at < regex_.size() && (static_cast<uint8_t>(regex_[at]) & 0xC0) == 0x80;
    };
    while (continues(place + count)) ++count;
    return absl::DataLossError(
        absl::StrFormat("pattern '%s': at byte %d, '%s': %s; not supported, because the tokenizers "
                        "package (Oniguruma) and this program (PCRE2) must read patterns alike",
                        regex_, place, regex_.substr(place, count), why));
  }
  // By the first of `refusals` that stands here, else because of `otherwise`.
  template <size_t N>
  absl::Status refuse_by(const Refusal (&refusals)[N], size_t count, const char* otherwise) const {
    for (const Refusal& refusal : refusals) {
      const absl::string_view text = refusal.text;
      if (absl::StartsWith(regex_.substr(at_), text)) return refuse(at_, text.size(), refusal.why);
    }
    return refuse(at_, count, otherwise);
  }

  bool stands(absl::string_view text) const { return absl::StartsWith(regex_.substr(at_), text); }
  bool take(absl::string_view text) {
    if (!stands(text)) return false;
    at_ += text.size();
    return true;
  }

  // What may look behind: branches of characters and classes, none of them empty.
  absl::Status check_behind() const {
    const char c = regex_[at_];
    const bool simple = absl::string_view("(*+?{^$").find(c) == absl::string_view::npos &&
                        !stands("\\A") && !stands("\\z") && !stands("\\Z");
    if (simple && (can_repeat_ || (c != '|' && c != ')'))) return absl::OkStatus();
    return refuse(at_, 1, "not a character or a class, which alone may look behind");
  }

  absl::Status read_part() {
    if (!groups_.empty() && groups_.back().looks_behind) {
      absl::Status status = check_behind();
      if (!status.ok()) return status;
    }
    switch (regex_[at_]) {
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '|':
        ++at_;
        out_ += '|';
        branches_ = {true, branches_.one_is_empty || branches_.last_is_empty};
        can_repeat_ = false;
        last_letter_ = 0;
        return absl::OkStatus();
      case '*':
      case '+':
      case '?':
      case '{':
        return read_quantifier();
      case '^':
      case '$':
        return anchor(1);
      case '.':
        ++at_;
        return atom(".");
      case '[':
        return read_class();
      default:
        break;
    }
    if (stands("\\A") || stands("\\z") || stands("\\Z")) return anchor(2);
    std::string members;
    bool complement = false;
    const size_t begin = at_;
    absl::Status status = read_members(&members, &complement);
    if (!status.ok()) return status;
    if (at_ > begin) return atom(absl::StrCat(complement ? "[^" : "[", members, "]"));
    const absl::StatusOr<uint32_t> character = read_character();
    if (!character.ok()) return character.status();
    status = check_case(begin, *character);
    const char letter = folded(*character);
    if (status.ok()) status = check_pair(begin, letter);
    if (!status.ok()) return status;
    return atom(written(*character), letter);
  }

  // `letter`: what it is where case is ignored; 0: not one letter.
  absl::Status atom(absl::string_view text, char letter = 0) {
    absl::StrAppend(&out_, text);
    can_repeat_ = true;
    behind_group_ = false;
    last_letter_ = letter;
    append_to_branch(/*is_empty=*/false);
    return absl::OkStatus();
  }
  // `is_empty`: what was read may match nothing.
  void append_to_branch(bool is_empty) {
    repeats_empty_ = is_empty;
    was_empty_ = branches_.last_is_empty;
    branches_.last_is_empty = was_empty_ && is_empty;
  }
  absl::Status anchor(size_t length) {
    absl::StrAppend(&out_, regex_.substr(at_, length));
    at_ += length;
    can_repeat_ = false;
    return absl::OkStatus();
  }

  // A character as it may stand anywhere in a pattern of PCRE2.
  static std::string written(uint32_t c) {
    if (is_punctuation(c)) return {'\\', static_cast<char>(c)};
    if (c < 0x20) return absl::StrFormat("\\x{%02x}", c);
    std::string text;
    append_code_point(c, &text);
    return text;
  }

  char folded(uint32_t c) const {
    return ignores_case_ && is_ascii(c) ? static_cast<char>(std::tolower(static_cast<int>(c))) : 0;
  }

  // Refuses `c`, which was read from `place`, where it is not known which others fold to it.
  absl::Status check_case(size_t place, uint32_t c) const {
    if (!ignores_case_ || has_known_case(c)) return absl::OkStatus();
    return refuse(place, at_ - place, "not a letter of ASCII, where case is ignored");
  }

  // Refuses `letter`, which was read from `place`, where it spells with the one before it what one
  // character folds to.
  absl::Status check_pair(size_t place, char letter) const {
    for (const absl::string_view pair : {"ss", "st", "ff", "fi", "fl"}) {
      if (pair[0] != last_letter_ || pair[1] != letter) continue;
      return refuse(place, at_ - place,
                    absl::StrCat("ends '", pair,
                                 "' where case is ignored, for which Oniguruma "
                                 "also takes the one character that folds to it"));
    }
    return absl::OkStatus();
  }

  // One character, written as itself or as an escape.
  absl::StatusOr<uint32_t> read_character() {
    if (regex_[at_] != '\\') return next_code_point(regex_, &at_);
    if (at_ + 1 == regex_.size()) return refuse(at_, 1, "nothing behind it");
    if (stands("\\x")) return read_number();
    constexpr absl::string_view kNames = "tnrfae";
    constexpr absl::string_view kMeanings = "\t\n\r\f\a\x1b";
    const char c = regex_[at_ + 1];
    const size_t name = kNames.find(c);
    if (name == absl::string_view::npos && !is_punctuation(static_cast<uint8_t>(c)) && c != ' ') {
      const bool digit = std::isdigit(static_cast<uint8_t>(c)) != 0;
      return refuse_by(
          kEscapes, 2,
          digit ? "a character or what a group matched" : "an escape without a meaning");
    }
    at_ += 2;
    return static_cast<uint8_t>(name == absl::string_view::npos ? c : kMeanings[name]);
  }

  // \x{65e5} or, for ASCII, \x41
  absl::StatusOr<uint32_t> read_number() {
    const bool braces = at_ + 2 < regex_.size() && regex_[at_ + 2] == '{';
    const size_t begin = at_ + (braces ? 3 : 2);
    size_t end = braces ? regex_.find('}', begin) : std::min(begin + 2, regex_.size());
    if (end == absl::string_view::npos) end = begin;
    const absl::string_view digits = regex_.substr(begin, end - begin);
    const bool right =
        !digits.empty() && digits.size() <= (braces ? 8 : 2) && digits.size() >= (braces ? 1 : 2) &&
        std::all_of(digits.begin(), digits.end(),
                    [](char c) { return std::isxdigit(static_cast<uint8_t>(c)) != 0; });
    uint32_t value = 0;
    if (right) value = static_cast<uint32_t>(std::stoul(std::string(digits), nullptr, 16));
    const bool character = value < 0xD800 || (value > 0xDFFF && value <= 0x10FFFF);
    if (!right || !character || (!braces && !is_ascii(value))) {
      return refuse(at_, std::max<size_t>(2, end + (braces ? 1 : 0) - at_),
                    "not the number of a character, as in \\x{65e5} or \\x41 (ASCII only)");
    }
    at_ = end + (braces ? 1 : 0);
    return value;
  }

  // Where \s, \d, \p{..} or one of their complements stands: its members as inside [..] of PCRE2.
  absl::Status read_members(std::string* members, bool* complement) {
    if (!stands("\\") || at_ + 1 == regex_.size()) return absl::OkStatus();
    const absl::string_view name = regex_.substr(at_ + 1, 1);
    if (absl::string_view("sSdDpP").find(name) == absl::string_view::npos) return absl::OkStatus();
    *complement = std::isupper(static_cast<uint8_t>(name[0])) != 0;
    if (name == "p" || name == "P") return read_property(members);
    *members = name == "s" || name == "S" ? kWhiteSpace : *members_of("Nd");
    at_ += 2;
    return absl::OkStatus();
  }

  static std::optional<std::string> members_of(absl::string_view property) {
    for (const UnicodeProperty& known : kUnicodeProperties) {
      if (property == known.name) return known.members;
    }
    return std::nullopt;
  }

  absl::Status read_property(std::string* members) {
    const size_t end = regex_.find('}', at_);
    if (at_ + 2 == regex_.size() || regex_[at_ + 2] != '{' || end == absl::string_view::npos) {
      return refuse_by(kEscapes, 2, "");
    }
    const size_t length = end + 1 - at_;
    const auto found = members_of(regex_.substr(at_ + 3, length - 4));
    if (!found) return refuse(at_, length, "not a property whose characters are known");
    if (ignores_case_) {
      return refuse(at_, length, "a property where case is ignored, which Oniguruma extends");
    }
    *members = *found;
    at_ += length;
    return absl::OkStatus();
  }

  absl::Status read_class() {
    const size_t open = at_++;
    out_ += '[';
    if (take("^")) out_ += '^';
    const size_t first = at_;
    const char before = std::exchange(last_letter_, 0);
    int members = 0;
    if (stands("]")) return refuse(at_, 1, "a ']' that opens a class; write \\]");
    while (!stands("]")) {
      if (at_ == regex_.size()) return refuse(open, 1, "has no ']'");
      absl::Status status = read_member(at_ == first);
      if (!status.ok()) return status;
      ++members;
    }
    ++at_;
    // [s] is the letter s to Oniguruma.
    const char letter = members == 1 ? last_letter_ : static_cast<char>(0);
    last_letter_ = before;
    absl::Status status = check_pair(open, letter);
    if (!status.ok()) return status;
    return atom("]", letter);
  }

  // A character, a range or a class inside [..].
  absl::Status read_member(bool first) {
    const size_t begin = at_;
    if (stands("-")) {
      const bool last = regex_.substr(at_ + 1, 1) == "]";
      if (!first && !last) return refuse(at_, 1, "a '-' in the middle of a class; write \\-");
      ++at_;
      out_ += "\\-";
      if (last || !stands("-")) return absl::OkStatus();
      return refuse(begin, 2, "a range from '-'; write \\-");
    }
    std::string members;
    bool complement = false;
    absl::Status status = read_members(&members, &complement);
    if (!status.ok()) return status;
    if (at_ > begin) {
      if (complement) return refuse(begin, at_ - begin, "a complement inside a class");
      out_ += members;
      return absl::OkStatus();
    }
    const absl::StatusOr<uint32_t> low = read_class_character();
    if (!low.ok()) return low.status();
    out_ += written(*low);
    if (!stands("-") || regex_.substr(at_ + 1, 1) == "]") return absl::OkStatus();
    ++at_;
    if (at_ == regex_.size()) return absl::OkStatus();  // without an end: the caller refuses it
    const absl::StatusOr<uint32_t> high = read_class_character();
    if (!high.ok()) return high.status();
    if (*high < *low) return refuse(begin, at_ - begin, "a range that ends before it begins");
    if (ignores_case_ && *low < 0x80 && *high >= 0x80) {
      return refuse(begin, at_ - begin, "a range from ASCII to beyond, where case is ignored");
    }
    absl::StrAppend(&out_, "-", written(*high));
    return absl::OkStatus();
  }

  absl::StatusOr<uint32_t> read_class_character() {
    const size_t begin = at_;
    if (stands("[:") || stands("[.") || stands("[=")) {
      return refuse(begin, 2, "a POSIX bracket or a class inside a class");
    }
    if (stands("[")) return refuse(begin, 1, "a class inside a class to Oniguruma; write \\[");
    if (stands("&&")) return refuse(begin, 2, "an intersection of classes to Oniguruma; write \\&");
    if (stands("-")) return refuse(begin, 1, "a '-' that ends a range; write \\-");
    absl::StatusOr<uint32_t> character = read_character();
    if (!character.ok()) return character;
    const absl::Status status = check_case(begin, *character);
    if (!status.ok()) return status;
    last_letter_ = folded(*character);
    return character;
  }

  absl::Status open_group() {
    Group group{at_, true, ignores_case_, stands("(?<"), std::exchange(branches_, {})};
    constexpr absl::string_view kAround[] = {"(?=", "(?!", "(?<=", "(?<!"};
    constexpr absl::string_view kPlain[] = {"(?:", "(?i:"};
    const auto here = [this](absl::string_view text) { return stands(text); };
    const auto* around = std::find_if(std::begin(kAround), std::end(kAround), here);
    const auto* plain = std::find_if(std::begin(kPlain), std::end(kPlain), here);
    absl::string_view text = "(";
    if (around != std::end(kAround)) {
      text = *around;
      group.repeats = false;
    } else if (plain != std::end(kPlain)) {
      text = *plain;
    } else if (stands("(?") || stands("(*")) {
      return refuse_by(kGroups, 3, "an unknown kind of group");
    }
    if (text == "(?i:") ignores_case_ = true;
    groups_.push_back(group);
    at_ += text.size();
    absl::StrAppend(&out_, text);
    can_repeat_ = false;
    return absl::OkStatus();
  }

  absl::Status close_group() {
    if (groups_.empty()) return refuse(at_, 1, "has no '('");
    const Group group = groups_.back();
    groups_.pop_back();
    can_repeat_ = behind_group_ = group.repeats;
    ignores_case_ = group.ignored_case;
    const Branches inside = std::exchange(branches_, group.around);
    append_to_branch(!group.repeats || inside.one_is_empty || inside.last_is_empty);
    ++at_;
    out_ += ')';
    return absl::OkStatus();
  }

  absl::Status read_quantifier() {
    const size_t begin = at_;
    if (!can_repeat_) {
      return refuse(begin, 1,
                    stands("{") ? "a '{' that repeats nothing; write \\{"
                                : "a quantifier of nothing or of a quantifier");
    }
    Interval times = {regex_[at_] == '+' ? 1u : 0u, regex_[at_] == '?' ? 1u : kMostRepeats};
    const bool counted = stands("{");
    if (counted) {
      absl::StatusOr<Interval> read = read_interval();
      if (!read.ok()) return read.status();
      times = *read;
    } else {
      ++at_;
    }
    if (repeats_empty_ && times.most > 1) {
      return refuse(
          begin, at_ - begin,
          "repeats what may match nothing, at which Oniguruma and PCRE2 stop differently");
    }
    if (times.least == 0) branches_.last_is_empty = was_empty_;
    if (counted && stands("+")) {
      return refuse(begin, at_ + 1 - begin, "greedy to Oniguruma, possessive to PCRE2");
    }
    if (times.is_fixed && stands("?")) {
      return refuse(begin, at_ + 1 - begin, "optional to Oniguruma, lazy to PCRE2");
    }
    if (behind_group_ && stands("+")) {
      return refuse(begin, at_ + 1 - begin,
                    "a group that gives nothing back, which PCRE2 (10.42) gets wrong");
    }
    if (!take("?")) take("+");
    absl::StrAppend(&out_, regex_.substr(begin, at_ - begin));
    can_repeat_ = false;
    return absl::OkStatus();
  }

  // {n}, {n,} or {n,m}
  absl::StatusOr<Interval> read_interval() {
    const size_t end = regex_.find('}', at_);
    const absl::string_view inside =
        end == absl::string_view::npos ? "" : regex_.substr(at_ + 1, end - at_ - 1);
    const size_t comma = inside.find(',');
    const bool fixed = comma == absl::string_view::npos;
    const absl::string_view low = inside.substr(0, comma);
    const absl::string_view high = fixed ? low : inside.substr(comma + 1);
    const auto digits = [](absl::string_view text) {
      return std::all_of(text.begin(), text.end(),
                         [](char c) { return std::isdigit(static_cast<uint8_t>(c)) != 0; });
    };
    const size_t length = end == absl::string_view::npos ? 1 : end + 1 - at_;
    if (low.empty() && digits(high) && !high.empty()) {
      return refuse(at_, length, "none up to so many to Oniguruma, itself to PCRE2");
    }
    if (low.empty() || !digits(low) || !digits(high)) {
      return refuse(at_, 1, "a '{' that is not {n}, {n,} or {n,m}; write \\{");
    }
    uint32_t least = 0;
    uint32_t most = kMostRepeats;
    const bool counts = absl::SimpleAtoi(low, &least) && least <= kMostRepeats &&
                        (high.empty() || absl::SimpleAtoi(high, &most)) && most <= kMostRepeats;
    if (!counts) return refuse(at_, length, "a count above 65535");
    if (least > most) return refuse(at_, length, "counts in the wrong order");
    at_ += length;
    return Interval{least, most, fixed};
  }

  absl::string_view regex_;
  size_t at_ = 0;
  std::string out_;
  std::vector<Group> groups_;   // that are open
  Branches branches_;           // of the innermost of them
  bool repeats_empty_ = false;  // what a quantifier would repeat may match nothing
  bool was_empty_ = true;       // so might its branch before it
  bool can_repeat_ = false;     // a quantifier may stand here
  bool behind_group_ = false;   // what the quantifier would repeat is a group
  bool ignores_case_ = false;
  char last_letter_ = 0;  // where case is ignored: of the characters so far
};

}  // namespace

absl::StatusOr<std::string> pcre2_pattern(absl::string_view regex) {
  return PatternReader(regex).read();
}

}  // namespace emo
