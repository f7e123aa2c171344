// Draws the views' parameters for XLA on CUDA devices. The handler (a function that XLA calls through its foreign
// function interface, FFI) has the same name (target) as the one in draw_view_params_xla.cc, for the platform "CUDA".
// It cannot check numbers that lie on the device.
// draw_view_params_cuda.h says what happens if they are wrong.
#include "draw_view_params_cuda.h"
#include "draw_view_params_ffi.h"

namespace lowlevel_simclr {
namespace {

ffi::Error run(void* stream, Index index, Sizes sizes, Index key, Whole epoch, Recipe recipe, Fours box,
               Flags flip, Numbers brightness, Numbers contrast, Numbers saturation, Numbers hue,
               Numbers brightness_shift, Fours order, Flags clip, Flags grey, Numbers blur_sigma) {
  if (ffi::Error error = check_lengths(index, sizes, key, recipe); error.failure()) return error;
  void* const params[] = {box->untyped_data(),
                          flip->untyped_data(),
                          brightness->untyped_data(),
                          contrast->untyped_data(),
                          saturation->untyped_data(),
                          hue->untyped_data(),
                          brightness_shift->untyped_data(),
                          order->untyped_data(),
                          clip->untyped_data(),
                          grey->untyped_data(),
                          blur_sigma->untyped_data()};
  return outcome("draw_view_params", lowlevel_simclr_draw_view_params_cuda(
                                         stream, index.dimensions()[0], index.typed_data(),
                                         sizes.typed_data(), sizes.dimensions()[0], key.typed_data(),
                                         epoch.typed_data(), recipe.typed_data(), params));
}

XLA_FFI_DEFINE_HANDLER(kDraw, run, with_arrays(ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>()));

const bool registered = register_targets("CUDA", {target<kDraw>("lowlevel_simclr_draw_view_params")});

}  // namespace
}  // namespace lowlevel_simclr
