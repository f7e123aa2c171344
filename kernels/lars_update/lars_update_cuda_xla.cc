// LARS for XLA on CUDA devices. The handler (a function that XLA calls through its foreign function interface, FFI) has
// the same name (target) as the one in lars_update_xla.cc, for the platform "CUDA". It checks the shapes in the same
// way as on the host. The scalars stay on the device.
#include <optional>
#include <vector>

#include "lars_update_cuda.h"
#include "lars_update_ffi.h"

namespace lowlevel_simclr {
namespace {

ffi::Error run(void* stream, ffi::ScratchAllocator scratch, Scalars scalars, ffi::RemainingArgs arguments,
               ffi::RemainingRets results) {
  const ffi::ErrorOr<std::vector<Update>> found = updates(scalars, arguments, results);
  if (found.has_error()) return found.error();
  std::vector<LarsVariable> variables;
  int64_t sums = 0;
  for (const Update& each : *found) {
    if (each.adapts()) sums += lowlevel_simclr_lars_update_cuda_partial_sums(each.count());
    variables.push_back({each.count(), each.adapts(), each.weight.typed_data(), each.gradient.typed_data(),
                         each.velocity.typed_data(), each.new_weight.typed_data(),
                         each.new_velocity.typed_data()});
  }
  const std::optional<void*> memory = device_memory(scratch, sums * static_cast<int64_t>(sizeof(double)));
  if (!memory.has_value()) return no_memory("LARS's sums on the device");
  return outcome("LARS", lowlevel_simclr_lars_update_all_cuda(stream, static_cast<int64_t>(variables.size()),
                                                              variables.data(), scalars.typed_data(),
                                                              static_cast<double*>(*memory)));
}

XLA_FFI_DEFINE_HANDLER(kLarsUpdate, run,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::PlatformStream<void*>>()
                           .Ctx<ffi::ScratchAllocator>()
                           .Arg<Scalars>()
                           .RemainingArgs()
                           .RemainingRets());

const bool registered = register_targets("CUDA", {target<kLarsUpdate>("lowlevel_simclr_lars_update")});

}  // namespace
}  // namespace lowlevel_simclr
