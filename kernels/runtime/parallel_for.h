// ParallelFor holds the threads that a caller lends to a kernel. A kernel uses no other threads.
//
// `run(pool, count, body, argument)` calls body(argument, index) once for every index in [0, count). The calls come
// from any thread and in any order. `run` returns when all calls have returned. Every call sees what the caller wrote
// before `run`. Afterwards the caller sees what the calls wrote. At most `threads` calls run at the same time.
//
// `threads` may change how long a kernel takes, but never what it computes.
#pragma once

#include <cstdint>

#include "float_mode.h"

namespace lowlevel_simclr {

using ParallelBody = void (*)(void* argument, int64_t index);

struct ParallelFor {
  void* pool;
  int64_t threads;
  void (*run)(void* pool, int64_t count, ParallelBody body, void* argument);
};

// Calls callable(index) for every index in [0, count) on the threads of `parallel`, in the mode of float_mode.h.
template <typename Callable>
void run_parallel(const ParallelFor& parallel, int64_t count, Callable& callable) {
  const ParallelBody body = [](void* argument, int64_t index) {
    const FloatMode mode;
    (*static_cast<Callable*>(argument))(index);
  };
  parallel.run(parallel.pool, count, body, &callable);
}

}  // namespace lowlevel_simclr
