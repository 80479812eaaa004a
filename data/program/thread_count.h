// How many threads a command that may have all works on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>

namespace emo {

// Those that were asked for; of 0, one for each core.
inline int thread_count(int64_t asked) {
  if (asked > 0) return static_cast<int>(asked);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace emo
