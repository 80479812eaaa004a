#include "launch/sweep/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "data/files/file_system.h"

namespace emo {
namespace {

constexpr int kCannotStart = 127;

absl::StatusOr<int> open_for_child(const std::string& path, int how) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0666);
  if (fd < 0) return errno_status("cannot write", path);
  return fd;
}

std::vector<char*> pointers(std::vector<std::string>* texts) {
  std::vector<char*> list;
  for (std::string& text : *texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

// This process's environment with some of it replaced.
std::vector<std::string> environment_with(
    const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : changes) replaced |= text.rfind(name + "=", 0) == 0;
    if (!replaced) all.push_back(text);
  }
  for (const auto& [name, value] : changes) all.push_back(name + "=" + value);
  return all;
}

// In the child; only what is safe between fork and exec.
[[noreturn]] void become(pid_t parent, int output, int log, int keeps_open, char* const* arguments,
                         char* const* environment) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kCannotStart);  // it has gone already
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (nothing >= 0) ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (keeps_open >= 0) ::fcntl(keeps_open, F_SETFD, 0);
  ::execve(arguments[0], arguments, environment);
  ::_exit(kCannotStart);
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::start(const ChildCommand& command) {
  absl::StatusOr<int> log = open_for_child(command.log, O_APPEND);
  if (!log.ok()) return log.status();
  absl::StatusOr<int> output = *log;
  if (!command.output.empty()) output = open_for_child(command.output, O_TRUNC);
  if (!output.ok()) {
    ::close(*log);
    return output.status();
  }
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = environment_with(command.environment);
  const std::vector<char*> argv = pointers(&arguments);
  const std::vector<char*> envp = pointers(&environment);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) become(parent, *output, *log, command.keeps_open, argv.data(), envp.data());
  const absl::Status failed =
      pid < 0 ? errno_status("cannot start", command.arguments[0]) : absl::OkStatus();
  if (*output != *log) ::close(*output);
  ::close(*log);
  if (!failed.ok()) return failed;
  ::setpgid(pid, pid);  // here too: whoever comes first
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), started_(other.started_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(started_, other.started_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (pid_ == 0) return;
  ::kill(-pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::optional<ChildEnd> ChildProcess::poll() {
  int status = 0;
  rusage usage{};
  if (pid_ == 0 || ::wait4(pid_, &status, WNOHANG, &usage) != pid_) return std::nullopt;
  pid_ = 0;
  ChildEnd end;
  end.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  end.seconds = std::chrono::duration<double>(Clock::now() - started_).count();
  end.peak_memory = usage.ru_maxrss * 1024;
  return end;
}

void ChildProcess::signal(int number) const {
  if (pid_ != 0) ::kill(pid_, number);
}

}  // namespace emo
