#include "train/subset/keep.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace emo {

absl::StatusOr<Keep> parse_keep(const std::string& text) {
  absl::string_view number = absl::StripAsciiWhitespace(text);
  const bool percent = absl::ConsumeSuffix(&number, "%");
  number = absl::StripTrailingAsciiWhitespace(number);
  Keep keep;
  if (!percent && absl::SimpleAtoi(number, &keep.count) && keep.count > 0) return keep;
  keep.count = 0;
  double value = 0;
  if (absl::SimpleAtod(number, &value)) keep.fraction = percent ? value / 100 : value;
  if (keep.fraction > 0 && keep.fraction <= 1) return keep;
  return absl::InvalidArgumentError(absl::StrCat(
      "keep ", text,
      ": expected a share of the experts, as 0.25 or 25 %, or a number of them, as 32"));
}

absl::StatusOr<std::vector<Keep>> parse_keeps(const std::vector<std::string>& texts) {
  std::vector<Keep> keeps;
  std::vector<std::string> wrong;
  for (const std::string& text : texts) {
    absl::StatusOr<Keep> keep = parse_keep(text);
    if (keep.ok()) {
      keeps.push_back(*keep);
    } else {
      wrong.emplace_back(keep.status().message());
    }
  }
  if (!wrong.empty()) return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
  return keeps;
}

int64_t experts_of(const Keep& keep, int64_t num_experts) {
  if (keep.count > 0) return keep.count;
  return std::llround(keep.fraction * static_cast<double>(num_experts));
}

std::string to_text(const Keep& keep) {
  if (keep.count > 0) return absl::StrCat(keep.count);
  return OrderedJson(keep.fraction).dump();  // all digits that it needs; 1.0 is not one expert
}

OrderedJson to_json(const Keep& keep) {
  return keep.count > 0 ? OrderedJson(keep.count) : OrderedJson(keep.fraction);
}

}  // namespace emo
