// Memory that a thread needs for the length of one task, kept from task to task.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model/host/workspace.h"
#include "parallel/thread_pool.h"

namespace emo {

class Scratch {
 public:
  Scratch() : threads_(static_cast<size_t>(thread_pool().size())) {}

  // At least `count` numbers for the calling thread, aligned to 64 bytes, contents undefined. Each
  // `slot` (0 to 3) is a buffer of its own; it stays valid until the thread asks for the slot
  // again.
  template <typename Stored = float>
  Stored* get(int slot, int64_t count) {
    return threads_[static_cast<size_t>(ThreadPool::thread_index())][static_cast<size_t>(slot)]
        .template get<Stored>(count);
  }

 private:
  std::vector<std::array<Workspace, 4>> threads_;
};

}  // namespace emo
