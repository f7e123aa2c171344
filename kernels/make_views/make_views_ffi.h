// Code for both handlers that make views, on the host and on CUDA: the arrays of a call, and the check of their types.
// A handler is a function that XLA calls through its foreign function interface (FFI).
#pragma once

#include "../glue/xla_ffi.h"
#include "make_views.h"

namespace lowlevel_simclr {
namespace {

using Any = ffi::AnyBuffer;
using Boxes = ffi::Buffer<ffi::S32, 2>;
using Flags = ffi::Buffer<ffi::PRED, 1>;
using Numbers = ffi::Buffer<ffi::F32, 1>;

// Adds the arguments and results of a call to a binding (the list of a handler's arguments), after those that the
// platform adds. The arguments are images, the parameters of every view in the order of make_views_op.cc, mean, and
// 1 / std. The result is views.
template <typename Binding>
auto with_arrays(Binding&& binding) {
  return gives<Any>(takes<Any, Boxes, Flags, Numbers, Numbers, Numbers, Numbers, Numbers, Boxes, Flags, Flags,
                          Numbers, Numbers, Numbers>(std::move(binding)));
}

// Python checked the shapes when it traced the call (ops/make_views.py). This function checks the types.
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

}  // namespace
}  // namespace lowlevel_simclr
