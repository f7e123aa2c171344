// The XLA of the TensorFlow that is loaded: registration with it, and calls from it, whichever release it is.
//
// The library is compiled beside one release and runs with all of ffi_releases.h. Three things differ between them and
// are settled here: where the table of functions is exported, which version a handler must report, and how large the
// arguments of two functions are.
#pragma once

#include <initializer_list>

#include "xla/ffi/api/c_api.h"

namespace lowlevel_simclr {

// A handler, and the name by which calls find it.
struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

// Registers handlers with XLA for a platform, "Host" or "CUDA". Returns false if XLA cannot call them. The reason is
// then lowlevel_simclr_xla_refusal().
bool register_targets(const char* platform, std::initializer_list<Target> targets);

// Runs a handler for a call of any release, or answers for it when XLA asks for its version.
XLA_FFI_Error* run_for_any_release(XLA_FFI_Handler* handler, XLA_FFI_CallFrame* frame);

template <XLA_FFI_Handler* handler>
XLA_FFI_Error* for_any_release(XLA_FFI_CallFrame* frame) {
  return run_for_any_release(handler, frame);
}

// A target whose handler can be called by every release.
template <XLA_FFI_Handler* handler>
Target target(const char* name) {
  return {name, for_any_release<handler>};
}

}  // namespace lowlevel_simclr
