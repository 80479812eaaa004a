#include "train/stop_signal.h"

#include <csignal>
#include <initializer_list>

namespace emo {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t requested = 0;

void on_signal(int number) {
  if (requested != 0 && number != SIGUSR1) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  requested = 1;
}

}  // namespace

// The handler has a stack of its own: one that ran on the stack of a thread inside oneDNN's
// products was seen to leave a corrupted heap, in one of six runs.
void watch_stop_signals() {
  alignas(64) static char stack[1 << 16];
  stack_t own{};
  own.ss_sp = stack;
  own.ss_size = sizeof stack;
  sigaltstack(&own, nullptr);  // of the calling thread; the pool's block all signals
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
}

bool stop_requested() { return requested != 0; }

}  // namespace emo
