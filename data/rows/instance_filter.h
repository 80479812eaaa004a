// The repetition filter (emo-facts 3.4): rows in which a short pattern repeats too often are not
// learnt from.
#pragma once

#include <cstdint>

namespace emo {

struct InstanceFilter {
  int64_t min_period = 1;
  int64_t max_period = 13;
  int64_t max_count = 32;  // repeats of a pattern that are too many
};

// True where for some period p in [min_period, min(max_period, count / 3)] there is a run of
// m >= (max_count - 1) * p consecutive positions with tokens[i] == tokens[i - p].
// REQUIRES: min_period >= 1, max_count >= 2.
bool is_repetitive(const int32_t* tokens, int64_t count, const InstanceFilter& filter);

}  // namespace emo
