// Working memory of a task.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace common::CPU_PATH {

// Memory aligned to a cache line, that grows to what is asked for and keeps nothing.
template <typename A>
class Buffer {
 public:
  A* at_least(int64_t size) {
    if (size > size_) {
      memory_.reset();
      const size_t bytes = (size * sizeof(A) + kAlignment - 1) / kAlignment * kAlignment;
      memory_.reset(static_cast<A*>(std::aligned_alloc(kAlignment, bytes)));
      if (!memory_) throw std::bad_alloc();
      size_ = size;
    }
    return memory_.get();
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(A* p) const { std::free(p); }
  };
  std::unique_ptr<A, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace common::CPU_PATH
