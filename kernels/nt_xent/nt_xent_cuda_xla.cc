// NT-Xent for XLA on CUDA devices. The handlers (functions that XLA calls through its foreign function interface, FFI)
// have the same names (targets) as those in nt_xent_xla.cc, for the platform "CUDA".
//
// The handlers check the shapes in the same way as on the host. But the scalars lie on the device, and a handler would
// have to wait for the device to read them. So they are not checked. If they are wrong, every result is NaN
// (nt_xent_cuda.h).
#include <optional>

#include "nt_xent_cuda.h"
#include "nt_xent_ffi.h"

namespace lowlevel_simclr {
namespace {

std::optional<void*> workspace_for(ffi::ScratchAllocator& scratch, const NtXentShape& shape) {
  const int64_t bytes = lowlevel_simclr_nt_xent_cuda_workspace_bytes(shape.pairs, shape.dim, shape.own_pairs,
                                                                     static_cast<int>(shape.type));
  return bytes < 0 ? std::nullopt : device_memory(scratch, bytes);
}

ffi::Error no_workspace() { return no_memory("NT-Xent's workspace on the device"); }

ffi::Error run_forward(void* stream, ffi::ScratchAllocator& scratch, ffi::AnyBuffer z, Scalar temperature,
                       const int64_t* first_pair, Result loss, Result normaliser, Result inverse_norm,
                       Result top1) {
  const auto shape = read_shape(z, loss->dimensions()[0], 0);
  if (shape.has_error()) return shape.error();
  const auto workspace = workspace_for(scratch, *shape);
  if (!workspace.has_value()) return no_workspace();
  return outcome("NT-Xent", lowlevel_simclr_nt_xent_cuda_forward(
                                stream, shape->pairs, shape->dim, shape->own_pairs,
                                static_cast<int>(shape->type), z.untyped_data(), temperature.typed_data(),
                                first_pair, *workspace, loss->untyped_data(), normaliser->untyped_data(),
                                inverse_norm->untyped_data(), static_cast<bool*>(top1->untyped_data())));
}

ffi::Error run_backward(void* stream, ffi::ScratchAllocator& scratch, ffi::AnyBuffer z,
                        ffi::AnyBuffer normaliser, ffi::AnyBuffer inverse_norm, ffi::AnyBuffer cotangent,
                        Scalar temperature, const int64_t* first_pair, Result dz,
                        ffi::Result<Scalar> dtemperature) {
  const auto shape = read_shape(z, dz->dimensions()[0], 0);
  if (shape.has_error()) return shape.error();
  const auto workspace = workspace_for(scratch, *shape);
  if (!workspace.has_value()) return no_workspace();
  return outcome(
      "NT-Xent",
      lowlevel_simclr_nt_xent_cuda_backward(
          stream, shape->pairs, shape->dim, shape->own_pairs, static_cast<int>(shape->type), z.untyped_data(),
          normaliser.untyped_data(), inverse_norm.untyped_data(), cotangent.untyped_data(),
          temperature.typed_data(), first_pair, *workspace, dz->untyped_data(), dtemperature->typed_data()));
}

// ---- Handlers

ffi::Error forward(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer z, Scalar temperature,
                   Result loss, Result normaliser, Result inverse_norm, Result top1) {
  return run_forward(stream, scratch, z, temperature, nullptr, loss, normaliser, inverse_norm, top1);
}

ffi::Error forward_rows(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer z, Scalar temperature,
                        Whole first_pair, Result loss, Result normaliser, Result inverse_norm, Result top1) {
  return run_forward(stream, scratch, z, temperature, first_pair.typed_data(), loss, normaliser, inverse_norm,
                     top1);
}

ffi::Error backward(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer z, ffi::AnyBuffer normaliser,
                    ffi::AnyBuffer inverse_norm, ffi::AnyBuffer cotangent, Scalar temperature, Result dz,
                    ffi::Result<Scalar> dtemperature) {
  return run_backward(stream, scratch, z, normaliser, inverse_norm, cotangent, temperature, nullptr, dz,
                      dtemperature);
}

ffi::Error backward_rows(void* stream, ffi::ScratchAllocator scratch, ffi::AnyBuffer z,
                         ffi::AnyBuffer normaliser, ffi::AnyBuffer inverse_norm, ffi::AnyBuffer cotangent,
                         Scalar temperature, Whole first_pair, Result dz, ffi::Result<Scalar> dtemperature) {
  return run_backward(stream, scratch, z, normaliser, inverse_norm, cotangent, temperature,
                      first_pair.typed_data(), dz, dtemperature);
}

auto on_stream() { return ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>().Ctx<ffi::ScratchAllocator>(); }

XLA_FFI_DEFINE_HANDLER(kForward, forward, forward_arrays(on_stream()));
XLA_FFI_DEFINE_HANDLER(kForwardRows, forward_rows, forward_arrays<Whole>(on_stream()));
XLA_FFI_DEFINE_HANDLER(kBackward, backward, backward_arrays(on_stream()));
XLA_FFI_DEFINE_HANDLER(kBackwardRows, backward_rows, backward_arrays<Whole>(on_stream()));

const bool registered =
    register_targets("CUDA", {target<kForward>("lowlevel_simclr_nt_xent"),
                              target<kForwardRows>("lowlevel_simclr_nt_xent_rows"),
                              target<kBackward>("lowlevel_simclr_nt_xent_grad"),
                              target<kBackwardRows>("lowlevel_simclr_nt_xent_rows_grad")});

}  // namespace
}  // namespace lowlevel_simclr
