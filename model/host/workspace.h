// Memory that grows to the largest size asked for, as a BLAS keeps it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace emo {

class Workspace {
 public:
  // At least `count` numbers, aligned to 64 bytes, contents undefined; valid until the next call.
  template <typename Stored>
  Stored* get(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(Stored);
    if (bytes_ < bytes) {
      memory_.reset(::operator new(bytes, kAlignment));
      bytes_ = bytes;
    }
    return static_cast<Stored*>(memory_.get());
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t bytes_ = 0;
};

}  // namespace emo
