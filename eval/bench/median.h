// The median of timings.
#pragma once

#include <algorithm>
#include <vector>

namespace emo {

// The upper one of two in the middle. REQUIRES: `values` is not empty.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace emo
