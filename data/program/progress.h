// The line that tells how long work goes on: done of total, rate, time left. On a terminal it is
// one line that rewrites itself; elsewhere a new line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace emo {

class Progress {
 public:
  // `unit` is what is counted ("documents", "steps"). Nothing is shown where `shown` is false: all
  // ranks but the first, and --quiet.
  Progress(std::string title, int64_t total, std::string unit, bool shown);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // REQUIRES: `done` never falls. It counts from 0; `note` is shown behind the rate ("loss 4.31").
  // Cheap: draws at most five times a second on a terminal, every ten seconds elsewhere, and at the
  // end.
  void update(int64_t done, const std::string& note = "");

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(int64_t done, const std::string& note) const;

  const std::string title_, unit_;
  const int64_t total_;
  const bool shown_, terminal_;
  const Clock::time_point start_;
  int64_t first_ = -1;  // where counting started: a resumed run does not start at 0
  Clock::time_point drawn_;
  bool open_ = false;
  bool ended_ = false;  // all was done when it was last drawn
};

// "1:02:03", "4:05"
std::string duration_string(double seconds);

}  // namespace emo
