// Drawing the views' parameters as an XLA FFI handler on CUDA devices: the target of draw_view_params_xla.cc for the
// platform "CUDA". What lies on the device cannot be refused: draw_view_params_cuda.h.
#include <string>

#include "draw_view_params.h"
#include "draw_view_params_cuda.h"
#include "xla/ffi/api/ffi.h"

// Absent from TensorFlow 2.15; then there is nobody to register with.
extern "C" __attribute__((weak)) const XLA_FFI_Api* XLA_FFI_GetApi();

namespace lowlevel_simclr {
namespace {

namespace ffi = xla::ffi;
using Index = ffi::Buffer<ffi::S64, 1>;
using Whole = ffi::Buffer<ffi::S64, 0>;
using Recipe = ffi::Buffer<ffi::F64, 1>;
using Four = ffi::Buffer<ffi::S32, 2>;
using Flag = ffi::Buffer<ffi::PRED, 1>;
using Number = ffi::Buffer<ffi::F32, 1>;
using Fours = ffi::Result<Four>;
using Flags = ffi::Result<Flag>;
using Numbers = ffi::Result<Number>;

ffi::Error run(void* stream, Index index, Index key, Whole epoch, Recipe recipe, Fours box, Flags flip,
               Numbers brightness, Numbers contrast, Numbers saturation, Numbers hue,
               Numbers brightness_shift, Fours order, Flags clip, Flags grey, Numbers blur_sigma) {
  if (key.dimensions()[0] != 2 || recipe.dimensions()[0] != kRecipeNumbers)
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, "key must be two words and recipe 27 numbers.");
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
  const char* why = lowlevel_simclr_draw_view_params_cuda(stream, index.dimensions()[0], index.typed_data(),
                                                          key.typed_data(), epoch.typed_data(),
                                                          recipe.typed_data(), params);
  if (why == nullptr) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, std::string("draw_view_params on CUDA: ") + why);
}

XLA_FFI_DEFINE_HANDLER(kDraw, run,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::PlatformStream<void*>>()
                           .Arg<Index>()
                           .Arg<Index>()
                           .Arg<Whole>()
                           .Arg<Recipe>()
                           .Ret<Four>()
                           .Ret<Flag>()
                           .Ret<Number>()
                           .Ret<Number>()
                           .Ret<Number>()
                           .Ret<Number>()
                           .Ret<Number>()
                           .Ret<Four>()
                           .Ret<Flag>()
                           .Ret<Flag>()
                           .Ret<Number>());

const bool registered = [] {
  if (XLA_FFI_GetApi == nullptr) return false;
  ffi::Ffi::RegisterStaticHandler(XLA_FFI_GetApi(), "lowlevel_simclr_draw_view_params", "CUDA", kDraw);
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
