// LARS as an XLA FFI handler on the host: lowlevel_simclr_lars_update. Arguments in the order of lars_update_op.cc, the four
// scalars as one array.
//
// XLA's thread pool is not used: our own threads serve both routes, so both give the same bits.
#include "../thread_pool.h"
#include "lars_update.h"
#include "lars_update_ffi.h"

namespace lowlevel_simclr {
namespace {

ffi::Error run(Variable weight, Variable gradient, Variable velocity, Scalars scalars, Result new_weight,
               Result new_velocity) {
  if (ffi::Error error = check_shapes(weight, gradient, velocity, scalars, *new_weight, *new_velocity);
      error.failure())
    return error;
  const int64_t count = static_cast<int64_t>(weight.element_count());
  if (count == 0) return ffi::Error::Success();
  const HostMemory sums = host_memory(lars_update_partial_sums(count) * sizeof(double));
  if (sums == nullptr) return no_memory("LARS's sums");
  const float* numbers = scalars.typed_data();
  const LarsChoices choices = {numbers[0], numbers[1], numbers[2], numbers[3], adapts(weight)};
  lars_update(shared_thread_pool(), count, choices, weight.typed_data(), gradient.typed_data(),
              DataType::kFloat32, velocity.typed_data(), static_cast<double*>(sums.get()),
              new_weight->typed_data(), new_velocity->typed_data());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kLarsUpdate, run, with_arrays(ffi::Ffi::Bind()));

const bool registered = register_targets("Host", {{"lowlevel_simclr_lars_update", kLarsUpdate}});

}  // namespace
}  // namespace lowlevel_simclr
