// Another process, started and watched.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace emo {

struct ChildCommand {
  std::vector<std::string> arguments;                            // the first is the program's path
  std::vector<std::pair<std::string, std::string>> environment;  // on top of this process's own
  std::string output;   // file of its standard output, made anew; "": the log
  std::string log;      // file that its standard error is added to
  int keeps_open = -1;  // a descriptor that it has too: a lock that it holds as long as it lives
};

// How a child ended.
struct ChildEnd {
  int code = 0;             // exit code; 128 + the signal that ended it
  double seconds = 0;       // that it ran
  int64_t peak_memory = 0;  // bytes, of it or of the largest of its own children
};

// One that is destroyed before it has ended is killed. Movable.
class ChildProcess {
 public:
  // In a process group of its own, so that a terminal's Ctrl-C is not its; it ends when this
  // process does. PermissionDenied, NotFound or Unknown where a file or the process cannot be made.
  static absl::StatusOr<ChildProcess> start(const ChildCommand& command);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  std::optional<ChildEnd> poll();  // does not wait; once it has answered, it is not asked again
  void signal(int number) const;

 private:
  using Clock = std::chrono::steady_clock;
  explicit ChildProcess(pid_t pid) : pid_(pid), started_(Clock::now()) {}
  pid_t pid_;  // 0: has ended
  Clock::time_point started_;
};

}  // namespace emo
