// The library's own threads, lent to kernels as a ParallelFor. The TensorFlow C API lends none of
// TensorFlow's.
//
// Between calls the threads sleep on a condition variable. Several callers may use the pool at once; the
// calling thread always takes part, so a call also ends where no pool thread could be started. In a child
// made by fork() the pool is built anew on first use, for no thread survives a fork.
//
// Size: LOWLEVEL_SIMCLR_THREADS when it holds a positive number (read when the pool is built), else the
// number of processors in the affinity mask.
#pragma once

#include "parallel_for.h"

namespace lowlevel_simclr {

ParallelFor shared_thread_pool();

}  // namespace lowlevel_simclr
