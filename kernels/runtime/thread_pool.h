// The library's own threads, as a ParallelFor. TensorFlow's C API gives no access to TensorFlow's threads.
//
// Between calls the threads sleep on a condition variable. Several callers may use the pool at once. The calling
// thread always takes part, so a call also ends if no pool thread could be started. No thread survives a fork: a
// child process builds a new pool on first use.
//
// Size: LOWLEVEL_SIMCLR_THREADS if it is a positive number, read when the pool is built. Otherwise the number of
// processors in the affinity mask.
#pragma once

#include "parallel_for.h"

namespace lowlevel_simclr {

ParallelFor shared_thread_pool();

}  // namespace lowlevel_simclr
