#include "data/rows/instance_filter.h"

#include <algorithm>

namespace emo {

bool is_repetitive(const int32_t* tokens, int64_t count, const InstanceFilter& filter) {
  const int64_t longest = std::min(filter.max_period, count / 3);
  for (int64_t period = filter.min_period; period <= longest; ++period) {
    const int64_t enough = (filter.max_count - 1) * period;
    int64_t run = 0;
    for (int64_t i = period; i < count; ++i) {
      run = tokens[i] == tokens[i - period] ? run + 1 : 0;
      if (run >= enough) return true;
    }
  }
  return false;
}

}  // namespace emo
