// Draws the views' parameters for XLA on the host: the handler lowlevel_simclr_draw_view_params. A handler is a
// function that XLA calls through its foreign function interface (FFI). The arguments and results of this handler are
// in the order of draw_view_params_op.cc.
#include <cstring>
#include <string>

#include "../runtime/thread_pool.h"
#include "draw_view_params_ffi.h"

namespace lowlevel_simclr {
namespace {

constexpr int64_t kWords = INT64_C(1) << 32;

ffi::Error run(Index index, Sizes sizes, Index key, Whole epoch, Recipe recipe, Fours box, Flags flip,
               Numbers brightness, Numbers contrast, Numbers saturation, Numbers hue,
               Numbers brightness_shift, Fours order, Flags clip, Flags grey, Numbers blur_sigma) {
  const int64_t count = index.dimensions()[0], number = epoch.typed_data()[0];
  const int64_t* places = index.typed_data();
  if (const int64_t wrong = first_wrong_index(count, places); wrong < count)
    return invalid("index[" + std::to_string(wrong) + "] is " + std::to_string(places[wrong]) +
                   ". An index must be in [0, 2^32).");
  if (number < 0 || number >= kWords)
    return invalid("epoch is " + std::to_string(number) + ". It must be in [0, 2^32).");
  if (ffi::Error error = check_lengths(index, sizes, key, recipe); error.failure()) return error;
  ViewRecipeNumbers numbers;
  std::memcpy(&numbers, recipe.typed_data(), sizeof numbers);
  const Frames frames{sizes.typed_data(), sizes.dimensions()[0]};
  if (const int64_t wrong = first_wrong_frame(frames, numbers); wrong < frames.count)
    return invalid(explain_frame(wrong, frames, numbers));
  const uint32_t seed[2] = {static_cast<uint32_t>(key.typed_data()[0]),
                            static_cast<uint32_t>(key.typed_data()[1])};
  const DrawnViewParams params = {
      box->typed_data(),        flip->typed_data(), brightness->typed_data(),       contrast->typed_data(),
      saturation->typed_data(), hue->typed_data(),  brightness_shift->typed_data(), order->typed_data(),
      clip->typed_data(),       grey->typed_data(), blur_sigma->typed_data()};
  draw_view_params(shared_thread_pool(), count, places, frames, seed, static_cast<uint32_t>(number), numbers,
                   params);
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER(kDraw, run, with_arrays(ffi::Ffi::Bind()));

const bool registered = register_targets("Host", {target<kDraw>("lowlevel_simclr_draw_view_params")});

}  // namespace
}  // namespace lowlevel_simclr
