// What lowlevel_simclr/ops/_library.py asks a freshly loaded library.
//
// The ABI number belongs to the contract between this library and the Python beside it: ops, attributes,
// order of inputs and outputs, FFI targets. It rises with every change of those, here and in _library.py.
#include "../runtime/instruction_set.h"
#include "../runtime/thread_pool.h"

#define LOWLEVEL_EXPORT extern "C" __attribute__((visibility("default")))

LOWLEVEL_EXPORT int lowlevel_simclr_abi() { return LOWLEVEL_SIMCLR_ABI; }

LOWLEVEL_EXPORT const char* lowlevel_simclr_instruction_set() {
  return lowlevel_simclr::instruction_set_name(lowlevel_simclr::instruction_set());
}

LOWLEVEL_EXPORT long lowlevel_simclr_threads() { return lowlevel_simclr::shared_thread_pool().threads; }
