#include "data/rows/instance_filter.h"

#include <algorithm>

namespace emo {
namespace {

// Whether the run of positions with tokens[i] == tokens[i - period] that `at` lies in, if it does,
// has at least `enough` of them.
bool in_long_run(const int32_t* tokens, int64_t count, int64_t period, int64_t enough, int64_t at) {
  const auto repeats = [&](int64_t i) { return tokens[i] == tokens[i - period]; };
  if (!repeats(at)) return false;
  int64_t first = at;
  while (first > period && at - first + 1 < enough && repeats(first - 1)) --first;
  int64_t last = at;
  while (last + 1 < count && last - first + 1 < enough && repeats(last + 1)) ++last;
  return last - first + 1 >= enough;
}

}  // namespace

bool is_repetitive(const int32_t* tokens, int64_t count, const InstanceFilter& filter) {
  const int64_t longest = std::min(filter.max_period, count / 3);
  for (int64_t period = filter.min_period; period <= longest; ++period) {
    const int64_t enough = (filter.max_count - 1) * period;
    // A run of so many positions holds one of those that are so far apart: only they are looked at.
    for (int64_t at = period + enough - 1; at < count; at += enough) {
      if (in_long_run(tokens, count, period, enough, at)) return true;
    }
  }
  return false;
}

}  // namespace emo
