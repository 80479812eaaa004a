#include "parallel/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"

namespace emo {
namespace {

struct ThisThread {
  int index = 0;
  bool inside_task = false;
};
thread_local ThisThread this_thread;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Looks until `value` is no longer `old`, for kSpin, then sleeps until it is notified.
void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto end = std::chrono::steady_clock::now() + ThreadPool::kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  value.wait(old, std::memory_order_acquire);
}

int wanted_threads() {
  const char* wanted = std::getenv("OMP_NUM_THREADS");  // a list means nested regions: its first
  int threads = 0;
  if (wanted != nullptr &&
      absl::SimpleAtoi(std::string(wanted).substr(0, std::string(wanted).find(',')), &threads) &&
      threads >= 1) {
    return threads;
  }
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  // Signals are for the thread that knows what to do about them (train/stop_signal.cc).
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int index = 1; index < threads; ++index) {
    workers_.emplace_back([this, index] { serve(index); });
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int ThreadPool::thread_index() { return this_thread.index; }
bool ThreadPool::inside_task() { return this_thread.inside_task; }

void ThreadPool::run(int64_t n, absl::FunctionRef<void(int64_t)> task) {
  if (n <= 1 || this_thread.inside_task) {
    for (int64_t i = 0; i < n; ++i) task(i);
    return;
  }
  task_ = &task;
  tasks_ = n;
  const uint32_t job = job_.load(std::memory_order_relaxed) + 1;
  unfinished_.store(static_cast<uint32_t>(n), std::memory_order_relaxed);
  ticket_.store(uint64_t{job} << 32 | static_cast<uint32_t>(n), std::memory_order_release);
  job_.store(job, std::memory_order_release);
  job_.notify_all();
  work();
  for (uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0;
       left = unfinished_.load(std::memory_order_acquire)) {
    wait_for_change(unfinished_, left);
  }
  if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::work() {
  uint64_t traced_job = 0;
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket) != 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    // Read while the claimed task is unfinished, so that nobody changes it.
    Trace* const trace = this_thread.index > 0 ? trace_ : nullptr;
    const auto begin = trace != nullptr ? Trace::Clock::now() : Trace::Clock::time_point();
    this_thread.inside_task = true;
    try {
      (*task_)(tasks_ - static_cast<uint32_t>(ticket));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex_);
      if (failure_ == nullptr) failure_ = std::current_exception();
    }
    this_thread.inside_task = false;
    if (trace != nullptr) {
      const uint64_t job = ticket >> 32;
      trace->add(this_thread.index, begin, Trace::Clock::now(), /*joins_last=*/job == traced_job);
      traced_job = job;
    }
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::serve(int index) {
  this_thread.index = index;
  uint32_t seen = 0;
  while (true) {
    wait_for_change(job_, seen);
    seen = job_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    work();
  }
}

ThreadPool& thread_pool() {
  static ThreadPool pool(wanted_threads());
  return pool;
}

}  // namespace emo
