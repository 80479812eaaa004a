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

  // At least `count` numbers for the calling thread, aligned to 64 bytes, contents undefined. Each
  // `slot` (0 to 3) is a buffer of its own; it stays valid until the thread asks for the slot
  // again.
  template <typename E = float>
  E* get(int slot, int64_t count) {
    Buffer& buffer =
        threads_[static_cast<size_t>(ThreadPool::thread_index())][static_cast<size_t>(slot)];
    const size_t bytes = static_cast<size_t>(count) * sizeof(E);
    if (buffer.bytes < bytes) {
      buffer.memory.reset(::operator new (bytes, std::align_val_t{64}));
      buffer.bytes = bytes;
    }
    return static_cast<E*>(buffer.memory.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete (memory, std::align_val_t{64}); }
  };
  struct Buffer {
    std::unique_ptr<void, Free> memory;
    size_t bytes = 0;
  };
  std::vector<std::array<Buffer, 4>> threads_;
};

}  // namespace emo
