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

void watch_stop_signals() {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) std::signal(number, on_signal);
}

bool stop_requested() { return requested != 0; }

}  // namespace emo
