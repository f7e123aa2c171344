// Functions that lowlevel_simclr/ops/_library.py calls after it has loaded the library.
//
// The ABI number stands for the contract between this library and the Python code of the package: ops, attributes, the
// order of inputs and outputs, and FFI targets. Raise it in _library.py when one of those changes. setup.py passes it
// to the compiler.
#include "../runtime/exported.h"
#include "../runtime/instruction_set.h"
#include "../runtime/thread_pool.h"

LOWLEVEL_SIMCLR_EXPORT int lowlevel_simclr_abi() { return LOWLEVEL_SIMCLR_ABI; }

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_instruction_set() {
  return lowlevel_simclr::instruction_set_name(lowlevel_simclr::instruction_set());
}

LOWLEVEL_SIMCLR_EXPORT long lowlevel_simclr_threads() {
  return lowlevel_simclr::shared_thread_pool().threads;
}
