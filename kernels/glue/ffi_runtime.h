// The XLA of the TensorFlow that is loaded: our handlers register with it and it calls them, whatever its release.
//
// The library is compiled with the headers of one release and runs with all releases in ffi_releases.h. Three things
// differ between releases, and this file takes care of them: where TensorFlow exports the table of functions, which
// version a handler must report, and how large the arguments of two functions are.
#pragma once

#include <initializer_list>

#include "xla/ffi/api/c_api.h"

namespace lowlevel_simclr {

// A handler, and the name that XLA's calls use for it.
struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

// Registers handlers with XLA for a platform, "Host" or "CUDA". Returns false if XLA cannot call them. Then
// lowlevel_simclr_xla_refusal() returns the reason.
bool register_targets(const char* platform, std::initializer_list<Target> targets);

// Runs a handler for a call of any release. If XLA asks for the handler's version instead, it answers that question.
XLA_FFI_Error* run_for_any_release(XLA_FFI_Handler* handler, XLA_FFI_CallFrame* frame);

template <XLA_FFI_Handler* handler>
XLA_FFI_Error* for_any_release(XLA_FFI_CallFrame* frame) {
  return run_for_any_release(handler, frame);
}

// Returns a target whose handler every release can call.
template <XLA_FFI_Handler* handler>
Target target(const char* name) {
  return {name, for_any_release<handler>};
}

}  // namespace lowlevel_simclr
