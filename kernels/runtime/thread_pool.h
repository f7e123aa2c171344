// The library's own threads, as a ParallelFor (see parallel_for.h). They are needed because TensorFlow's C API gives no
// access to TensorFlow's threads. Between calls the threads sleep on a condition variable. Several callers may use the
// pool at the same time. The calling thread always does a part of the work, so a call ends even if no pool thread could
// be started. After a fork, the child process has none of these threads. It builds a new pool when it first needs one.
// If LOWLEVEL_SIMCLR_THREADS is a positive number, the pool has that many threads. Otherwise it has one thread for each
// processor in the process's affinity mask. The variable and the mask are read when the pool is built.
#pragma once

#include "parallel_for.h"

namespace lowlevel_simclr {

ParallelFor shared_thread_pool();

}  // namespace lowlevel_simclr
