// How many experts are kept, as people say it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/files/json.h"

namespace emo {

// Shared experts are counted, as in num_experts.
struct Keep {
  double fraction = 0;  // of num_experts, in (0, 1]; 0: `count` says it
  int64_t count = 0;
  bool operator==(const Keep&) const = default;
};

// "0.25", "25%" and "25 %" are fractions, "32" is a number of experts, and so is "1".
// InvalidArgument for anything else.
absl::StatusOr<Keep> parse_keep(const std::string& text);
// Of a list: all that is wrong at once.
absl::StatusOr<std::vector<Keep>> parse_keeps(const std::vector<std::string>& texts);

// What --help says of it.
inline constexpr char kKeepHelp[] =
    "experts to keep in each layer, shared ones counted: a share as 0.25 or 25 %, or a number as "
    "32";

// round(fraction * num_experts), or the number.
int64_t experts_of(const Keep& keep, int64_t num_experts);

std::string to_text(const Keep& keep);  // "0.25" or "32"
OrderedJson to_json(const Keep& keep);  // 0.25 or 32

}  // namespace emo
