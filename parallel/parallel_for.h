// Threads of one rank. The number of threads is OpenMP's (OMP_NUM_THREADS), shared with libtorch's
// matrix products. Nothing computed through these functions may depend on the number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace emo {

inline int num_threads() { return omp_get_max_threads(); }

// f(begin, end) over consecutive ranges that cover [0, n), about one for each thread and none, but
// the last, shorter than `grain`.
template <typename F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  const int64_t parts = std::min<int64_t>(num_threads(), n / std::max<int64_t>(grain, 1));
  if (parts <= 1 || omp_in_parallel()) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(parts))
  for (int64_t part = 0; part < parts; ++part) f(n * part / parts, n * (part + 1) / parts);
}

// f(i) for every i in [0, n), each handed to the next free thread: for tasks of unequal length.
template <typename F>
void parallel_tasks(int64_t n, const F& f) {
  if (n <= 1 || num_threads() == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) f(i);
}

}  // namespace emo
