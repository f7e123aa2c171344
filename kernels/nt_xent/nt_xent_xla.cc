// NT-Xent for XLA on the host: the handlers lowlevel_simclr_nt_xent, _grad, _rows and _rows_grad. A handler is a
// function that XLA calls through its foreign function interface (FFI). The arguments and results of these handlers are
// in the order of nt_xent_op.cc. In XLA the shapes of the results are known, so they give the number of own rows.
//
// The handlers do not use XLA's thread pool. Like the TensorFlow ops, they use our own threads (thread_pool.h), so both
// give the same bits at the same speed.
#include "../runtime/thread_pool.h"
#include "nt_xent.h"
#include "nt_xent_ffi.h"

namespace lowlevel_simclr {
namespace {

HostMemory workspace_for(const ParallelFor& parallel, const NtXentShape& shape) {
  return host_memory(nt_xent_workspace_bytes(parallel, shape));
}

ffi::Error check_temperature(double temperature) {
  return temperature > 0 && temperature <= __DBL_MAX__
             ? ffi::Error::Success()
             : invalid("temperature must be a positive finite number.");
}

ffi::Error run_forward(ffi::AnyBuffer z, Scalar temperature, int64_t first_pair, Result loss,
                       Result normaliser, Result inverse_norm, Result top1) {
  const auto shape = read_shape(z, loss->dimensions()[0], first_pair);
  if (shape.has_error()) return shape.error();
  const double tau = temperature.typed_data()[0];
  if (ffi::Error error = check_temperature(tau); error.failure()) return error;
  const ParallelFor parallel = shared_thread_pool();
  const HostMemory workspace = workspace_for(parallel, *shape);
  if (workspace == nullptr) return no_memory("NT-Xent's workspace");
  nt_xent_forward(parallel, *shape, z.untyped_data(), tau, workspace.get(), loss->untyped_data(),
                  normaliser->untyped_data(), inverse_norm->untyped_data(),
                  static_cast<bool*>(top1->untyped_data()));
  return ffi::Error::Success();
}

ffi::Error run_backward(ffi::AnyBuffer z, ffi::AnyBuffer normaliser, ffi::AnyBuffer inverse_norm,
                        ffi::AnyBuffer cotangent, Scalar temperature, int64_t first_pair, Result dz,
                        ffi::Result<Scalar> dtemperature) {
  const auto shape = read_shape(z, dz->dimensions()[0], first_pair);
  if (shape.has_error()) return shape.error();
  const double tau = temperature.typed_data()[0];
  if (ffi::Error error = check_temperature(tau); error.failure()) return error;
  const ParallelFor parallel = shared_thread_pool();
  const HostMemory workspace = workspace_for(parallel, *shape);
  if (workspace == nullptr) return no_memory("NT-Xent's workspace");
  nt_xent_backward(parallel, *shape, z.untyped_data(), normaliser.untyped_data(), inverse_norm.untyped_data(),
                   cotangent.untyped_data(), tau, workspace.get(), dz->untyped_data(),
                   dtemperature->typed_data());
  return ffi::Error::Success();
}

// ---- Handlers

ffi::Error forward(ffi::AnyBuffer z, Scalar temperature, Result loss, Result normaliser, Result inverse_norm,
                   Result top1) {
  return run_forward(z, temperature, 0, loss, normaliser, inverse_norm, top1);
}

ffi::Error forward_rows(ffi::AnyBuffer z, Scalar temperature, Whole first_pair, Result loss,
                        Result normaliser, Result inverse_norm, Result top1) {
  return run_forward(z, temperature, first_pair.typed_data()[0], loss, normaliser, inverse_norm, top1);
}

ffi::Error backward(ffi::AnyBuffer z, ffi::AnyBuffer normaliser, ffi::AnyBuffer inverse_norm,
                    ffi::AnyBuffer cotangent, Scalar temperature, Result dz,
                    ffi::Result<Scalar> dtemperature) {
  return run_backward(z, normaliser, inverse_norm, cotangent, temperature, 0, dz, dtemperature);
}

ffi::Error backward_rows(ffi::AnyBuffer z, ffi::AnyBuffer normaliser, ffi::AnyBuffer inverse_norm,
                         ffi::AnyBuffer cotangent, Scalar temperature, Whole first_pair, Result dz,
                         ffi::Result<Scalar> dtemperature) {
  return run_backward(z, normaliser, inverse_norm, cotangent, temperature, first_pair.typed_data()[0], dz,
                      dtemperature);
}

XLA_FFI_DEFINE_HANDLER(kForward, forward, forward_arrays(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(kForwardRows, forward_rows, forward_arrays<Whole>(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(kBackward, backward, backward_arrays(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(kBackwardRows, backward_rows, backward_arrays<Whole>(ffi::Ffi::Bind()));

const bool registered =
    register_targets("Host", {target<kForward>("lowlevel_simclr_nt_xent"),
                              target<kForwardRows>("lowlevel_simclr_nt_xent_rows"),
                              target<kBackward>("lowlevel_simclr_nt_xent_grad"),
                              target<kBackwardRows>("lowlevel_simclr_nt_xent_rows_grad")});

}  // namespace
}  // namespace lowlevel_simclr
