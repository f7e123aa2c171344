// The library's own threads, as a ParallelFor. TensorFlow's C API gives no access to TensorFlow's threads.
//
// Between calls the threads sleep on a condition variable. Several callers may use the pool at the same time. The
// calling thread always takes part, so a call ends even if no pool thread could be started. No thread survives a fork.
// A child process builds a new pool when it first needs one.
//
// If LOWLEVEL_SIMCLR_THREADS is a positive number, the pool has that many threads. Otherwise it has as many as the
// affinity mask has processors. Both are read when the pool is built.
#pragma once

#include "parallel_for.h"

namespace lowlevel_simclr {

ParallelFor shared_thread_pool();

}  // namespace lowlevel_simclr
