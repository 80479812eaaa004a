#include "data/program/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace emo {
namespace {

std::string count_string(double n) {
  if (n >= 1e9) return absl::StrFormat("%.2fG", n / 1e9);
  if (n >= 1e6) return absl::StrFormat("%.2fM", n / 1e6);
  if (n >= 1e4) return absl::StrFormat("%.1fk", n / 1e3);
  return n < 10 && n != std::floor(n) ? absl::StrFormat("%.1f", n) : absl::StrFormat("%.0f", n);
}

// Under mpirun standard error is a pipe to mpirun, which may have a terminal; launch/mpirun.sh
// tells.
bool is_terminal() {
  return ::isatty(STDERR_FILENO) != 0 || std::getenv("EMO_TERMINAL") != nullptr;
}

}  // namespace

std::string duration_string(double seconds) {
  const int64_t s = std::llround(std::max(0.0, seconds));
  if (s >= 3600) return absl::StrFormat("%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
  return absl::StrFormat("%d:%02d", s / 60, s % 60);
}

Progress::Progress(std::string title, int64_t total, std::string unit, bool shown)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      shown_(shown),
      terminal_(is_terminal()),
      start_(Clock::now()),
      drawn_(start_) {}

Progress::~Progress() {
  if (open_) std::fputc('\n', stderr);
}

std::string Progress::line(int64_t done, const std::string& note) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done - first_) / elapsed : 0;
  std::string text = absl::StrCat(title_, " ", count_string(static_cast<double>(done)));
  if (total_ > 0) {
    absl::StrAppend(&text, "/", count_string(static_cast<double>(total_)),
                    absl::StrFormat(" %3.0f%%", 100.0 * static_cast<double>(done) /
                                                    static_cast<double>(total_)));
  }
  absl::StrAppend(&text, "  ", count_string(rate), " ", unit_, "/s");
  if (total_ > 0 && rate > 0) {
    absl::StrAppend(&text, "  ", duration_string(static_cast<double>(total_ - done) / rate),
                    " left");
  }
  return note.empty() ? text : absl::StrCat(text, "  ", note);
}

void Progress::update(int64_t done, const std::string& note) {
  if (first_ < 0) first_ = done;
  if (!shown_) return;
  const double since = std::chrono::duration<double>(Clock::now() - drawn_).count();
  const bool last = total_ > 0 && done >= total_ && !ended_;
  ended_ = ended_ || last;
  if (!last && since < (terminal_ ? 0.2 : 10.0)) return;
  drawn_ = Clock::now();
  const std::string text = line(done, note);
  if (terminal_) {
    std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
  } else {
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  std::fflush(stderr);
  open_ = terminal_;
}

}  // namespace emo
