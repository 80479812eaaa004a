// Memory that a disk can read into and write from without the system's cache in between.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

namespace emo {

constexpr size_t kDiskBlock = 4096;  // of memory, offset and size; hardly a disk asks for more

struct FreeMemory {
  void operator()(char* memory) const { std::free(memory); }
};
using AlignedBuffer = std::unique_ptr<char, FreeMemory>;

// Throws std::bad_alloc. REQUIRES: `bytes` is a multiple of kDiskBlock.
inline AlignedBuffer aligned_buffer(size_t bytes) {
  AlignedBuffer buffer(static_cast<char*>(std::aligned_alloc(kDiskBlock, bytes)));
  if (buffer == nullptr) throw std::bad_alloc();
  return buffer;
}

}  // namespace emo
