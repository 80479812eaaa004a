// Memory that a thread needs for the length of one task, kept from task to task.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/thread_pool.h"

namespace emo {

class Scratch {
 public:
  Scratch() : threads_(static_cast<size_t>(thread_pool().size())) {}

  // At least `count` floats for the calling thread, aligned to 64 bytes, contents undefined. Each
  // `slot` (0 to 3) is a buffer of its own; it stays valid until the thread asks for the slot
  // again.
  float* get(int slot, int64_t count) {
    Buffer& buffer =
        threads_[static_cast<size_t>(ThreadPool::thread_index())][static_cast<size_t>(slot)];
    if (buffer.count < count) {
      buffer.memory.reset(static_cast<float*>(
          ::operator new (static_cast<size_t>(count) * sizeof(float), std::align_val_t{64})));
      buffer.count = count;
    }
    return buffer.memory.get();
  }

 private:
  struct Free {
    void operator()(float* memory) const { ::operator delete (memory, std::align_val_t{64}); }
  };
  struct Buffer {
    std::unique_ptr<float, Free> memory;
    int64_t count = 0;
  };
  std::vector<std::array<Buffer, 4>> threads_;
};

}  // namespace emo
