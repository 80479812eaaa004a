#include "data/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/unicode_additions.h"

namespace emo {
namespace {

// The pattern that ByteLevel applies when it does its own splitting (GPT-2's).
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr char kWhiteSpace[] = R"(\p{Z}\x{09}-\x{0d}\x{85})";  // Unicode's White_Space property
constexpr uint32_t kMatchLimit = 100'000'000;                  // backtracking steps for one match
constexpr uint32_t kHeapLimitKib = 1 << 20;

// What stands for a character class of Oniguruma inside [...] of PCRE2: white space, or a Unicode
// category with the characters that PCRE2's older tables lack. "" where both mean the same.
std::string class_members(const std::string& regex, size_t backslash, size_t* length) {
  if (regex[backslash + 1] == 's') return *length = 2, kWhiteSpace;
  for (const UnicodeAddition& addition : kUnicodeAdditions) {
    const std::string property = absl::StrCat("\\p{", addition.category, "}");
    const bool digit = regex[backslash + 1] == 'd' && property == "\\p{Nd}";
    if (!digit && regex.compare(backslash, property.size(), property) != 0) continue;
    *length = digit ? 2 : property.size();
    return property + addition.ranges;
  }
  return "";
}

// Oniguruma's pattern in PCRE2's words (see the header).
absl::StatusOr<std::string> translate(const std::string& regex) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < regex.size(); ++i) {
    const char c = regex[i];
    if (c == '\\' && i + 1 < regex.size()) {
      // \S, \D and \P{..} are the complements of \s, \d and \p{..}.
      const bool complement = absl::StrContains("SPD", regex.substr(i + 1, 1));
      std::string positive = regex;
      if (complement) positive[i + 1] = static_cast<char>(std::tolower(regex[i + 1]));
      size_t length = 0;
      const std::string members = class_members(positive, i, &length);
      if (members.empty()) {
        out += {c, regex[++i]};
        continue;
      }
      if (complement && in_class) {
        return absl::InvalidArgumentError(
            absl::StrCat(regex.substr(i, length), " inside [...] is not supported"));
      }
      absl::StrAppend(&out, in_class ? "" : complement ? "[^" : "[", members, in_class ? "" : "]");
      i += length - 1;
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    if (c == '+' && !in_class && i > 0 && regex[i - 1] == '}') {
      const size_t open = regex.rfind('{', i);
      const bool property = open > 0 && (regex[open - 1] == 'p' || regex[open - 1] == 'P');
      if (!property) return absl::InvalidArgumentError("a '+' behind {n,m} is not supported");
    }
    out += c;
  }
  return out;
}

struct CodeDelete {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct ContextDelete {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct MatchDelete {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string pcre2_message(int error) {
  unsigned char text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct SplitPattern::Compiled {
  std::unique_ptr<pcre2_code, CodeDelete> code;
  std::unique_ptr<pcre2_match_context, ContextDelete> context;
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;
};

SplitPattern::SplitPattern() : compiled_(std::make_unique<Compiled>()) {}
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

absl::StatusOr<SplitPattern> SplitPattern::compile(const std::string& regex, Behavior behavior,
                                                   bool invert) {
  absl::StatusOr<std::string> translated = translate(regex);
  if (!translated.ok()) return translated.status();
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  SplitPattern pattern;
  pattern.compiled_->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get()));
  if (pattern.compiled_->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern '", regex, "': ", pcre2_message(error)));
  }
  pcre2_jit_compile(pattern.compiled_->code.get(),
                    PCRE2_JIT_COMPLETE);  // slower without, not wrong
  pattern.compiled_->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(pattern.compiled_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(pattern.compiled_->context.get(), kHeapLimitKib);
  pattern.compiled_->behavior = behavior;
  pattern.compiled_->invert = invert;
  return pattern;
}

absl::Status SplitPattern::split(absl::string_view text,
                                 std::vector<absl::string_view>* pieces) const {
  const auto emit = [&](size_t begin, size_t end, bool matched) {
    const bool removed = compiled_->behavior == Behavior::kRemoved && matched != compiled_->invert;
    if (begin < end && !removed) pieces->push_back(text.substr(begin, end - begin));
  };
  const std::unique_ptr<pcre2_match_data, MatchDelete> match(
      pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
  size_t begin = 0;  // of what is not yet emitted
  size_t search = 0;
  while (search < text.size()) {
    const int result = pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(), search, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                   match.get(), compiled_->context.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::DataLossError(absl::StrCat("the tokenizer's pattern fails at byte ", search,
                                              ": ", pcre2_message(result)));
    }
    emit(begin, bounds[0], /*matched=*/false);
    emit(bounds[0], bounds[1], /*matched=*/true);
    begin = search = bounds[1];
  }
  emit(begin, text.size(), /*matched=*/false);
  return absl::OkStatus();
}

absl::Status PreTokenizer::add(const Json& json, const std::string& where) {
  absl::StatusOr<std::string> type = json_field<std::string>(json, "type", where);
  if (!type.ok()) return type.status();
  if (*type == "Sequence") {
    if (!json.contains("pretokenizers") || !json["pretokenizers"].is_array()) {
      return absl::DataLossError(where + ": a Sequence without 'pretokenizers'");
    }
    for (const Json& part : json["pretokenizers"]) {
      absl::Status status = add(part, where);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  if (*type == "ByteLevel") {
    byte_level_ = true;
    if (json.value("add_prefix_space", false)) {
      return absl::InvalidArgumentError(where + ": add_prefix_space is not supported");
    }
    if (!json.value("use_regex", true)) return absl::OkStatus();
    absl::StatusOr<SplitPattern> pattern =
        SplitPattern::compile(kGpt2Pattern, SplitPattern::Behavior::kIsolated, false);
    if (!pattern.ok()) return pattern.status();
    patterns_.push_back(*std::move(pattern));
    return absl::OkStatus();
  }
  if (*type == "Split") {
    if (!json.contains("pattern") || !json["pattern"].contains("Regex")) {
      return absl::InvalidArgumentError(where +
                                        ": a Split without a Regex pattern is not supported");
    }
    const std::string behavior = json.value("behavior", "");
    if (behavior != "Isolated" && behavior != "Removed") {
      return absl::InvalidArgumentError(where + ": Split behavior '" + behavior +
                                        "' is not supported");
    }
    absl::StatusOr<SplitPattern> pattern =
        SplitPattern::compile(json["pattern"]["Regex"].get<std::string>(),
                              behavior == "Isolated" ? SplitPattern::Behavior::kIsolated
                                                     : SplitPattern::Behavior::kRemoved,
                              json.value("invert", false));
    if (!pattern.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", pattern.status().message()));
    }
    patterns_.push_back(*std::move(pattern));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(where + ": '" + *type +
                                    "' is not supported (ByteLevel, Split and Sequence are)");
}

absl::StatusOr<PreTokenizer> PreTokenizer::from_json(const Json& json, const std::string& where) {
  PreTokenizer pre_tokenizer;
  absl::Status status = pre_tokenizer.add(json, where);
  if (!status.ok()) return status;
  if (!pre_tokenizer.byte_level_) {
    return absl::InvalidArgumentError(where + ": not a byte-level tokenizer (no ByteLevel step)");
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::split(absl::string_view text,
                                 std::vector<absl::string_view>* words) const {
  if (patterns_.size() == 1) return patterns_[0].split(text, words);
  std::vector<absl::string_view> pieces = {text};
  for (const SplitPattern& pattern : patterns_) {
    std::vector<absl::string_view> finer;
    for (const absl::string_view piece : pieces) {
      absl::Status status = pattern.split(piece, &finer);
      if (!status.ok()) return status;
    }
    pieces = std::move(finer);
  }
  words->insert(words->end(), pieces.begin(), pieces.end());
  return absl::OkStatus();
}

}  // namespace emo
