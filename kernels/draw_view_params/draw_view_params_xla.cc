// Drawing the views' parameters as an XLA FFI handler on the host: lowlevel_simclr_draw_view_params. Arguments
// and results in the order of draw_view_params_op.cc.
#include <cstring>
#include <string>

#include "../thread_pool.h"
#include "draw_view_params.h"
#include "xla/ffi/api/ffi.h"

// Absent from TensorFlow 2.15; then there is nobody to register with.
extern "C" __attribute__((weak)) const XLA_FFI_Api* XLA_FFI_GetApi();

namespace lowlevel_simclr {
namespace {

namespace ffi = xla::ffi;
using Index = ffi::Buffer<ffi::S64, 1>;
using Whole = ffi::Buffer<ffi::S64, 0>;
using Recipe = ffi::Buffer<ffi::F64, 1>;
using Fours = ffi::Result<ffi::Buffer<ffi::S32, 2>>;
using Flags = ffi::Result<ffi::Buffer<ffi::PRED, 1>>;
using Numbers = ffi::Result<ffi::Buffer<ffi::F32, 1>>;

constexpr int64_t kWords = INT64_C(1) << 32;

ffi::Error invalid(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, message);
}

ffi::Error run(Index index, Index key, Whole epoch, Recipe recipe, Fours box, Flags flip, Numbers brightness,
               Numbers contrast, Numbers saturation, Numbers hue, Numbers brightness_shift, Fours order,
               Flags clip, Flags grey, Numbers blur_sigma) {
  const int64_t count = index.dimensions()[0], number = epoch.typed_data()[0];
  const int64_t* places = index.typed_data();
  if (const int64_t wrong = first_wrong_index(count, places); wrong < count)
    return invalid("index[" + std::to_string(wrong) + "] is " + std::to_string(places[wrong]) +
                   ": give places of images in [0, 2^32).");
  if (number < 0 || number >= kWords)
    return invalid("epoch is " + std::to_string(number) + ": give a number in [0, 2^32).");
  if (key.dimensions()[0] != 2 || recipe.dimensions()[0] != kRecipeNumbers)
    return invalid("key must be two words and recipe 27 numbers.");
  ViewRecipeNumbers numbers;
  std::memcpy(&numbers, recipe.typed_data(), sizeof numbers);
  const uint32_t seed[2] = {static_cast<uint32_t>(key.typed_data()[0]),
                            static_cast<uint32_t>(key.typed_data()[1])};
  const DrawnViewParams params = {
      box->typed_data(),        flip->typed_data(), brightness->typed_data(),       contrast->typed_data(),
      saturation->typed_data(), hue->typed_data(),  brightness_shift->typed_data(), order->typed_data(),
      clip->typed_data(),       grey->typed_data(), blur_sigma->typed_data()};
  draw_view_params(shared_thread_pool(), count, places, seed, static_cast<uint32_t>(number), numbers, params);
  return ffi::Error::Success();
}

using Four = ffi::Buffer<ffi::S32, 2>;
using Flag = ffi::Buffer<ffi::PRED, 1>;
using Number = ffi::Buffer<ffi::F32, 1>;
XLA_FFI_DEFINE_HANDLER(kDraw, run,
                       ffi::Ffi::Bind()
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
  ffi::Ffi::RegisterStaticHandler(XLA_FFI_GetApi(), "lowlevel_simclr_draw_view_params", "Host", kDraw);
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
