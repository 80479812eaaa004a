// The threads of one rank: a team that claims numbered tasks one by one.
//
// Whoever runs takes the next task, and nobody waits for a thread that has not begun one; a thread
// without work looks for some for kSpin and then sleeps. So a neighbour on the same cores costs its
// share of the time, and not a time slice at every meeting point.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "parallel/trace.h"

namespace emo {

class ThreadPool {
 public:
  static constexpr std::chrono::microseconds kSpin{50};

  // The calling thread is one of the team; `threads` - 1 are started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(i) for every i in [0, n) and returns when all are done; what they wrote is then
  // visible. Called by one thread at a time. The first exception of a task is thrown again here,
  // after the others have ended. A single task runs on the caller and is not "inside a task", so
  // that it may use all threads itself; inside one, run() does its tasks one after another.
  void run(int64_t n, absl::FunctionRef<void(int64_t)> task);

  // Records what the workers do from now on; null: no longer. The caller's own spans are its
  // affair.
  void set_trace(Trace* trace) { trace_ = trace; }

  // Number of the calling thread in the team, 0 for the one that calls run(); and whether it is
  // inside a task.
  static int thread_index();
  static bool inside_task();

 private:
  void work();  // claims and does tasks until none is left
  void serve(int index);

  std::vector<std::thread> workers_;

  // The job: written before ticket_, and stable while a claimed task is unfinished.
  const absl::FunctionRef<void(int64_t)>* task_ = nullptr;
  int64_t tasks_ = 0;
  Trace* trace_ = nullptr;
  std::mutex failure_mutex_;
  std::exception_ptr failure_;

  // Number of the job in the upper half, tasks not yet claimed in the lower: a thread that comes
  // late finds nothing to claim, or a task of a newer job.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> job_{0};  // what sleepers wait for
  std::atomic<bool> stopping_{false};
};

// The pool of this process, made at first use with OMP_NUM_THREADS threads, or one for each core
// that the process may use. There is one because cores are the process's, whoever needs them.
ThreadPool& thread_pool();

}  // namespace emo
