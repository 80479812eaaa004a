// Time and memory of this process, as benchmarks report them.
#pragma once

#include <chrono>
#include <cstdint>

namespace emo {

using BenchClock = std::chrono::steady_clock;

double seconds_since(BenchClock::time_point begin);
int64_t peak_memory_bytes();  // resident, since the process began

}  // namespace emo
