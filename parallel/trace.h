// What the threads of one rank did when: spans for a timeline in the Chrome trace format, which
// chrome://tracing and ui.perfetto.dev show, one row for each thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emo {

class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Trace(int threads) : spans_(static_cast<size_t>(threads)) {}

  // What spans are called from now on. By the first thread, while no tasks run.
  void set_name(const std::string& name);

  // A span of a thread of the team; each thread adds its own. `joins_last`: goes on with the
  // thread's span before.
  void add(int thread, Clock::time_point begin, Clock::time_point end, bool joins_last = false);

  // Events of the trace format, comma-separated; `rank` is their process, times count from `start`.
  // While no tasks run.
  std::string to_events(int64_t rank, Clock::time_point start) const;

 private:
  struct Span {
    size_t name;
    Clock::time_point begin, end;
  };
  std::map<std::string, size_t> numbers_;
  std::vector<std::string> names_;
  size_t name_ = 0;
  std::vector<std::vector<Span>> spans_;  // [threads]
};

}  // namespace emo
