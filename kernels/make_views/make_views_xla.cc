// Views as an XLA FFI handler on the host: lowlevel_simclr_make_views. Arguments in the order of
// make_views_op.cc, without the size: sizes are static, so the result's shape says it.
//
// XLA's thread pool is not used: our own threads serve both routes.
#include <cstdlib>
#include <memory>

#include "../thread_pool.h"
#include "make_views.h"
#include "make_views_fault.h"
#include "xla/ffi/api/ffi.h"

// Absent from TensorFlow 2.15; then there is nobody to register with.
extern "C" __attribute__((weak)) const XLA_FFI_Api* XLA_FFI_GetApi();

namespace lowlevel_simclr {
namespace {

namespace ffi = xla::ffi;
using Any = ffi::AnyBuffer;
using Boxes = ffi::Buffer<ffi::S32, 2>;
using Flags = ffi::Buffer<ffi::PRED, 1>;
using Numbers = ffi::Buffer<ffi::F32, 1>;

ffi::Error invalid(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, message);
}

// Shapes were checked where the call was traced (ops/make_views.py); types are checked here.
ffi::ErrorOr<MakeViewsShape> read_shape(Any images, Any views) {
  const auto from = images.dimensions(), to = views.dimensions();
  if (from.size() != 4 || to.size() != 4)
    return ffi::Unexpected(invalid("images and views must have four axes."));
  MakeViewsShape shape{from[0], from[1], from[2], from[3], to[1], {}, {}};
  switch (images.element_type()) {
    case ffi::U8:
      shape.pixels = PixelType::kUint8;
      break;
    case ffi::U16:
      shape.pixels = PixelType::kUint16;
      break;
    case ffi::F32:
      shape.pixels = PixelType::kFloat32;
      break;
    default:
      return ffi::Unexpected(invalid("images must be uint8, uint16 or float32."));
  }
  switch (views.element_type()) {
    case ffi::F32:
      shape.type = DataType::kFloat32;
      break;
    case ffi::BF16:
      shape.type = DataType::kBfloat16;
      break;
    case ffi::F16:
      shape.type = DataType::kFloat16;
      break;
    default:
      return ffi::Unexpected(invalid("views must be float32, bfloat16 or float16."));
  }
  return shape;
}

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
