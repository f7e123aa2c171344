// Makes views for XLA on CUDA devices. The handler (a function that XLA calls through its foreign function interface,
// FFI) has the same name (target) as the one in make_views_xla.cc, for the platform "CUDA".
//
// It checks the types in the same way as on the host. But the parameters lie on the device, and the handler would have
// to wait for the device to read them. So it does not check them. If they are invalid for a view, every pixel of this
// view is NaN (make_views.h).
#include <optional>

#include "make_views_cuda.h"
#include "make_views_ffi.h"

namespace lowlevel_simclr {
namespace {

ffi::Error run(void* stream, ffi::ScratchAllocator scratch, Any images, Boxes box, Flags flip,
               Numbers brightness, Numbers contrast, Numbers saturation, Numbers hue,
               Numbers brightness_shift, Boxes order, Flags clip, Flags grey, Numbers blur_sigma,
               Numbers mean, Numbers inverse_std, ffi::Result<Any> views) {
  const auto shape = read_shape(images, *views);
  if (shape.has_error()) return shape.error();
  const int pixels = static_cast<int>(shape->pixels), type = static_cast<int>(shape->type);
  const int64_t bytes = lowlevel_simclr_make_views_cuda_workspace_bytes(
      shape->count, shape->height, shape->width, shape->channels, shape->size, pixels, type);
  const std::optional<void*> workspace = device_memory(scratch, bytes);
  if (!workspace.has_value()) return no_memory("the views' workspace on the device");
  const void* const params[] = {box.untyped_data(),
                                flip.untyped_data(),
                                brightness.untyped_data(),
                                contrast.untyped_data(),
                                saturation.untyped_data(),
                                hue.untyped_data(),
                                brightness_shift.untyped_data(),
                                order.untyped_data(),
                                clip.untyped_data(),
                                grey.untyped_data(),
                                blur_sigma.untyped_data()};
  return outcome("make_views", lowlevel_simclr_make_views_cuda(stream, shape->count, shape->height,
                                                               shape->width, shape->channels, shape->size,
                                                               pixels, type, images.untyped_data(), params,
                                                               mean.typed_data(), inverse_std.typed_data(),
                                                               *workspace, views->untyped_data()));
}

XLA_FFI_DEFINE_HANDLER(
    kMakeViews, run,
    with_arrays(ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>().Ctx<ffi::ScratchAllocator>()));

const bool registered = register_targets("CUDA", {target<kMakeViews>("lowlevel_simclr_make_views")});

}  // namespace
}  // namespace lowlevel_simclr
