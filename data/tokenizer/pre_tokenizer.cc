#include "data/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "data/tokenizer/pattern_grammar.h"
#include "data/tokenizer/utf8.h"

namespace emo {
namespace {

// The pattern that ByteLevel applies when it does its own splitting (GPT-2's).
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// One match. Steps of backtracking, which PCRE2 counts in 32 bits; and memory to remember them in:
// of compiled code, and of the interpreter that takes over where that is not enough.
constexpr uint32_t kMatchLimit = 4'000'000'000;
constexpr size_t kLargestStack = size_t{4} << 30;
constexpr uint32_t kHeapLimitKib = 16 << 20;

struct CodeDelete {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct ContextDelete {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct StackDelete {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
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

  // pcre2_match from `search` on. A word of megabytes may need a stack of gigabytes, which is made
  // where the ordinary one did not do.
  int find(absl::string_view text, size_t search, pcre2_match_data* match) const {
    const auto run = [&](uint32_t options, pcre2_match_context* with) {
      return pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), search,
                         options | PCRE2_NO_UTF_CHECK, match, with);
    };
    const int result = run(0, context.get());
    if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
    const std::unique_ptr<pcre2_jit_stack, StackDelete> stack(
        pcre2_jit_stack_create(1 << 20, kLargestStack, nullptr));
    if (stack != nullptr) {
      const std::unique_ptr<pcre2_match_context, ContextDelete> roomy(
          pcre2_match_context_copy(context.get()));
      pcre2_jit_stack_assign(roomy.get(), nullptr, stack.get());
      const int again = run(0, roomy.get());
      if (again != PCRE2_ERROR_JIT_STACKLIMIT) return again;
    }
    return run(PCRE2_NO_JIT, context.get());
  }
};

SplitPattern::SplitPattern() : compiled_(std::make_unique<Compiled>()) {}
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

absl::StatusOr<SplitPattern> SplitPattern::compile(const std::string& regex, Behavior behavior,
                                                   bool invert) {
  absl::StatusOr<std::string> translated = pcre2_pattern(regex);
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
    return absl::DataLossError(absl::StrCat("pattern '", regex, "': ", pcre2_message(error)));
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
  bool matched_here = false;  // a match ends at `search`
  while (search <= text.size()) {
    const int result = compiled_->find(text, search, match.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::DataLossError(absl::StrCat("the tokenizer's pattern fails at byte ", search,
                                              ": ", pcre2_message(result)));
    }
    if (bounds[0] == bounds[1] && bounds[1] == search && matched_here) {
      // Nothing, behind a match: the search goes on behind the next character.
      if (search == text.size()) break;
      next_code_point(text, &search);
      matched_here = false;
      continue;
    }
    emit(begin, bounds[0], /*matched=*/false);
    emit(bounds[0], bounds[1], /*matched=*/true);
    begin = search = bounds[1];
    matched_here = true;
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
      return absl::DataLossError(where + ": add_prefix_space is not supported");
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
      return absl::DataLossError(where + ": a Split without a Regex pattern is not supported");
    }
    const std::string behavior = json.value("behavior", "");
    if (behavior != "Isolated" && behavior != "Removed") {
      return absl::DataLossError(where + ": Split behavior '" + behavior + "' is not supported");
    }
    absl::StatusOr<SplitPattern> pattern =
        SplitPattern::compile(json["pattern"]["Regex"].get<std::string>(),
                              behavior == "Isolated" ? SplitPattern::Behavior::kIsolated
                                                     : SplitPattern::Behavior::kRemoved,
                              json.value("invert", false));
    if (!pattern.ok()) {
      return absl::DataLossError(absl::StrCat(where, ": ", pattern.status().message()));
    }
    patterns_.push_back(*std::move(pattern));
    return absl::OkStatus();
  }
  return absl::DataLossError(where + ": '" + *type +
                             "' is not supported (ByteLevel, Split and Sequence are)");
}

absl::StatusOr<PreTokenizer> PreTokenizer::from_json(const Json& json, const std::string& where) {
  PreTokenizer pre_tokenizer;
  absl::Status status = pre_tokenizer.add(json, where);
  if (!status.ok()) return status;
  if (!pre_tokenizer.byte_level_) {
    return absl::DataLossError(where + ": not a byte-level tokenizer (no ByteLevel step)");
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
