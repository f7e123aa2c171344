// Workspace cuts the arrays of one call out of one block of memory, and computes how large this block must be.
//
// One function takes all arrays of a kernel. It is called twice. With a null base, it only adds up the sizes, and the
// caller allocates that much. With the allocated memory as base, it returns the arrays. So both always agree:
//
//     Workspace<64> memory(base);         // null: take() returns null
//     sums = memory.take<float>(rows);
//     bytes = memory.bytes();
#pragma once

#include <cstdint>

#include "rounding.h"

namespace lowlevel_simclr {

constexpr int64_t kHostAlignment = 64;  // bytes: a cache line, and the widest vector

// If the base is aligned to kAlignment bytes, every array is too.
template <int64_t kAlignment>
class Workspace {
 public:
  LOWLEVEL_SIMCLR_HOST_DEVICE explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}

  // Returns memory for the next `count` values of type T. The contents are undefined.
  template <typename T>
  LOWLEVEL_SIMCLR_HOST_DEVICE T* take(int64_t count) {
    T* taken = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += round_up(count * static_cast<int64_t>(sizeof(T)), kAlignment);
    return taken;
  }

  // Returns the size in bytes of all arrays that were taken so far.
  LOWLEVEL_SIMCLR_HOST_DEVICE int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

}  // namespace lowlevel_simclr
