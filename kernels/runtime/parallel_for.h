// The one way a kernel gets threads: its caller lends them.
//
// `run(pool, count, body, argument)` calls body(argument, index) once for every index in [0, count), from any
// thread and in any order, and returns when all calls have returned. What the caller wrote before is visible
// to every body, and what the bodies wrote is visible to the caller afterwards. At most `threads` bodies run
// at a time; `threads` may decide how long a call takes, never what it computes.
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

// Calls a callable (index) -> void through the plain interface above, in the one floating-point mode.
template <typename Callable>
void run_parallel(const ParallelFor& parallel, int64_t count, Callable& callable) {
  const ParallelBody body = [](void* argument, int64_t index) {
    const FloatMode mode;
    (*static_cast<Callable*>(argument))(index);
  };
  parallel.run(parallel.pool, count, body, &callable);
}

}  // namespace lowlevel_simclr
