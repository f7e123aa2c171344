// Views as an XLA FFI handler on the host: lowlevel_simclr_make_views. Arguments in the order of
// make_views_op.cc, without the size: sizes are static, so the result's shape says it.
//
// XLA's thread pool is not used: our own threads serve both routes.
#include <cstdlib>
#include <memory>

#include "../thread_pool.h"
#include "make_views_fault.h"
#include "make_views_ffi.h"

namespace lowlevel_simclr {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

ffi::Error run(Any images, Boxes box, Flags flip, Numbers brightness, Numbers contrast, Numbers saturation,
               Numbers hue, Numbers brightness_shift, Boxes order, Flags clip, Flags grey, Numbers blur_sigma,
               Numbers mean, Numbers inverse_std, ffi::Result<Any> views) {
  const auto shape = read_shape(images, *views);
  if (shape.has_error()) return shape.error();
  const ViewParamArrays params = {
      box.typed_data(),        flip.typed_data(), brightness.typed_data(),       contrast.typed_data(),
      saturation.typed_data(), hue.typed_data(),  brightness_shift.typed_data(), order.typed_data(),
      clip.typed_data(),       grey.typed_data(), blur_sigma.typed_data()};
  if (const std::string fault = make_views_fault(*shape, params); !fault.empty()) return invalid(fault);
  const ParallelFor parallel = shared_thread_pool();
  const int64_t bytes = (make_views_workspace_bytes(parallel, *shape) + 63) / 64 * 64;
  const std::unique_ptr<void, Free> workspace(std::aligned_alloc(64, bytes));
  if (workspace == nullptr)
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for the views' workspace.");
  make_views(parallel, *shape, images.untyped_data(), params, mean.typed_data(), inverse_std.typed_data(),
             workspace.get(), views->untyped_data());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kMakeViews, run,
                       ffi::Ffi::Bind()
                           .Arg<Any>()
                           .Arg<Boxes>()
                           .Arg<Flags>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Boxes>()
                           .Arg<Flags>()
                           .Arg<Flags>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Arg<Numbers>()
                           .Ret<Any>());

const bool registered = [] {
  if (XLA_FFI_GetApi == nullptr) return false;
  ffi::Ffi::RegisterStaticHandler(XLA_FFI_GetApi(), "lowlevel_simclr_make_views", "Host", kMakeViews);
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
