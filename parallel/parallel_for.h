// Loops on the threads of this rank (see thread_pool.h). Nothing computed through these functions
// may depend on the number of threads. Inside a task they run on the calling thread alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "parallel/thread_pool.h"

namespace emo {

inline int num_threads() { return thread_pool().size(); }

// f(begin, end) over consecutive ranges that cover [0, n): a few for each thread, so that a slow
// one does less, and none, but the last, shorter than `grain`.
template <typename F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  constexpr int64_t kRangesPerThread = 4;
  const int64_t ranges =
      std::min<int64_t>(kRangesPerThread * num_threads(), n / std::max<int64_t>(grain, 1));
  if (ranges <= 1 || num_threads() == 1 || ThreadPool::inside_task()) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  thread_pool().run(ranges, [&](int64_t i) { f(n * i / ranges, n * (i + 1) / ranges); });
}

// f(i) for every i in [0, n), each handed to the next free thread: for tasks of unequal length.
template <typename F>
void parallel_tasks(int64_t n, const F& f) {
  thread_pool().run(n, f);
}

}  // namespace emo
