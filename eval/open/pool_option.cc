#include "eval/open/pool_option.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace emo {

absl::StatusOr<PoolPolicy> parse_pool(const std::string& text, int64_t top_k) {
  PoolPolicy policy;
  policy.kind = PoolPolicy::Kind::kNone;
  if (text == "none") return policy;
  const std::vector<std::string> ends = absl::StrSplit(text, '-');
  policy.kind = PoolPolicy::Kind::kRange;
  if (ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &policy.min) ||
      !absl::SimpleAtoi(ends.back(), &policy.max) || policy.min < top_k ||
      policy.max < policy.min) {
    return absl::InvalidArgumentError(absl::StrCat("pool '", text,
                                                   "': must be none, N or MIN-MAX, of at least ",
                                                   top_k, " (the routed experts of a token)"));
  }
  return policy;
}

}  // namespace emo
