// Registers our handlers with the XLA of the loaded TensorFlow, and receives the calls from it. Both work with any
// release of TensorFlow from 2.18 on.
//
// The library is compiled with the headers of one release and runs with all releases in ffi_releases.h. Three things
// differ between releases, and the code behind this header takes care of them: where TensorFlow exports the table of
// XLA's functions, which version a handler must report, and how large the arguments of two functions are.
#pragma once

#include <initializer_list>

#include "xla/ffi/api/c_api.h"

namespace lowlevel_simclr {

// A handler, and the name by which XLA's calls refer to it.
struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

// Registers handlers with XLA for a platform, "Host" or "CUDA". Returns false if XLA cannot call the handlers. In that
// case lowlevel_simclr_xla_refusal() returns the reason.
bool register_targets(const char* platform, std::initializer_list<Target> targets);

// Runs a handler for a call from the XLA of any release. If XLA only asks for the handler's version, this function
// answers and does not run the handler.
XLA_FFI_Error* run_for_any_release(XLA_FFI_Handler* handler, XLA_FFI_CallFrame* frame);

template <XLA_FFI_Handler* handler>
XLA_FFI_Error* for_any_release(XLA_FFI_CallFrame* frame) {
  return run_for_any_release(handler, frame);
}

// Returns a target whose handler the XLA of every release can call.
template <XLA_FFI_Handler* handler>
Target target(const char* name) {
  return {name, for_any_release<handler>};
}

}  // namespace lowlevel_simclr
