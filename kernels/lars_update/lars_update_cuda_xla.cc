// LARS as an XLA FFI handler on CUDA devices: the target of lars_update_xla.cc for the platform "CUDA". Shapes are checked
// as on the host; the scalars stay on the device.
#include <optional>
#include <string>

#include "lars_update_cuda.h"
#include "lars_update_ffi.h"

namespace lowlevel_simclr {
namespace {

ffi::Error run(void* stream, ffi::ScratchAllocator scratch, Variable weight, Variable gradient,
               Variable velocity, Scalars scalars, Result new_weight, Result new_velocity) {
  if (ffi::Error error = check_shapes(weight, gradient, velocity, scalars, *new_weight, *new_velocity);
      error.failure())
    return error;
  const int64_t count = static_cast<int64_t>(weight.element_count());
  const int64_t bytes = lowlevel_simclr_lars_update_cuda_partial_sums(count) * sizeof(double);
  const std::optional<void*> sums =
      adapts(weight) && bytes > 0 ? scratch.Allocate(static_cast<size_t>(bytes), 256) : nullptr;
  if (!sums.has_value())
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no device memory for LARS's sums.");
  const char* why = lowlevel_simclr_lars_update_cuda(stream, count, adapts(weight), scalars.typed_data(),
                                                     weight.typed_data(), gradient.typed_data(),
                                                     velocity.typed_data(), static_cast<double*>(*sums),
                                                     new_weight->typed_data(), new_velocity->typed_data());
  if (why == nullptr) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, std::string("LARS on CUDA: ") + why);
}

XLA_FFI_DEFINE_HANDLER(
    kLarsUpdate, run,
    with_arrays(ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>().Ctx<ffi::ScratchAllocator>()));

const bool registered = [] {
  if (XLA_FFI_GetApi == nullptr) return false;
  ffi::Ffi::RegisterStaticHandler(XLA_FFI_GetApi(), "lowlevel_simclr_lars_update", "CUDA", kLarsUpdate);
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
