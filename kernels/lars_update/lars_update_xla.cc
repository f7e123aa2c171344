// LARS for XLA on the host: the handler lowlevel_simclr_lars_update. A handler is a function that XLA calls through its
// foreign function interface (FFI).
//
// The handler does not use XLA's thread pool. Like the TensorFlow op, it uses our own threads (thread_pool.h), so both
// give the same bits.
#include <vector>

#include "../runtime/thread_pool.h"
#include "lars_update.h"
#include "lars_update_ffi.h"

namespace lowlevel_simclr {
namespace {

ffi::Error move(const Update& each, const Scalars& scalars) {
  const int64_t count = each.count();
  if (count == 0) return ffi::Error::Success();
  const HostMemory sums = host_memory(lars_update_partial_sums(count) * sizeof(double));
  if (sums == nullptr) return no_memory("LARS's sums");
  const float* numbers = scalars.typed_data();
  const LarsChoices choices = {numbers[0], numbers[1], numbers[2], numbers[3], each.adapts()};
  lars_update(shared_thread_pool(), count, choices, each.weight.typed_data(), each.gradient.typed_data(),
              DataType::kFloat32, each.velocity.typed_data(), static_cast<double*>(sums.get()),
              each.new_weight.typed_data(), each.new_velocity.typed_data());
  return ffi::Error::Success();
}

ffi::Error run(Scalars scalars, ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  const ffi::ErrorOr<std::vector<Update>> found = updates(scalars, arguments, results);
  if (found.has_error()) return found.error();
  for (const Update& each : *found)
    if (ffi::Error error = move(each, scalars); error.failure()) return error;
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kLarsUpdate, run, ffi::Ffi::Bind().Arg<Scalars>().RemainingArgs().RemainingRets());

const bool registered = register_targets("Host", {target<kLarsUpdate>("lowlevel_simclr_lars_update")});

}  // namespace
}  // namespace lowlevel_simclr
