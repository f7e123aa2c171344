// Makes views for XLA on the host: the handler lowlevel_simclr_make_views. A handler is a function that XLA calls
// through its foreign function interface (FFI). The arguments of this handler are in the order of make_views_op.cc, but
// without the size of the views. In XLA the shape of the result is known, and it gives this size.
//
// The handler does not use XLA's thread pool. Like the TensorFlow op, it uses our own threads (thread_pool.h).
#include "../runtime/thread_pool.h"
#include "make_views_fault.h"
#include "make_views_ffi.h"

namespace lowlevel_simclr {
namespace {

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
  const HostMemory workspace = host_memory(make_views_workspace_bytes(parallel, *shape));
  if (workspace == nullptr) return no_memory("the views' workspace");
  make_views(parallel, *shape, images.untyped_data(), params, mean.typed_data(), inverse_std.typed_data(),
             workspace.get(), views->untyped_data());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kMakeViews, run, with_arrays(ffi::Ffi::Bind()));

const bool registered = register_targets("Host", {target<kMakeViews>("lowlevel_simclr_make_views")});

}  // namespace
}  // namespace lowlevel_simclr
