// Code for all handlers of NT-Xent, on the host and on CUDA: the arrays of a call, and the checks of their shapes. A
// handler is a function that XLA calls through its foreign function interface (FFI).
#pragma once

#include <cstdint>

#include "../glue/xla_ffi.h"
#include "nt_xent.h"

namespace lowlevel_simclr {
namespace {

using Any = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;
using Scalar = ffi::Buffer<ffi::F64, 0>;
using Whole = ffi::Buffer<ffi::S64, 0>;

// Adds the arguments and results of a call to a binding (the list of a handler's arguments), after those that the
// platform adds. `More` stands for the further arguments of the rectangular forms (_rows), which give the first own
// pair.
//
// Forward: z, temperature, More -> loss, normaliser, inverse_norm, top1.
// Backward: z, normaliser, inverse_norm, cotangent, temperature, More -> dz, dtemperature.
template <typename... More, typename Binding>
auto forward_arrays(Binding&& binding) {
  return gives<Any, Any, Any, Any>(takes<Any, Scalar, More...>(std::move(binding)));
}

template <typename... More, typename Binding>
auto backward_arrays(Binding&& binding) {
  return gives<Any, Scalar>(takes<Any, Any, Any, Any, Scalar, More...>(std::move(binding)));
}

// Returns the shape of a call, or an error that says what is wrong with it.
ffi::ErrorOr<NtXentShape> read_shape(ffi::AnyBuffer z, int64_t own_rows, int64_t first_pair) {
  NtXentShape shape{};
  switch (z.element_type()) {
    case ffi::F32:
      shape.type = DataType::kFloat32;
      break;
    case ffi::F64:
      shape.type = DataType::kFloat64;
      break;
    case ffi::BF16:
      shape.type = DataType::kBfloat16;
      break;
    case ffi::F16:
      shape.type = DataType::kFloat16;
      break;
    default:
      return ffi::Unexpected(invalid("z must be bfloat16, float16, float32 or float64."));
  }
  const auto dims = z.dimensions();
  if (dims.size() != 2 || dims[0] < 2 || dims[0] % 2 != 0 || dims[1] < 1 || dims[0] > INT32_MAX) {
    return ffi::Unexpected(invalid("NT-Xent needs z of shape (2N, d) with N >= 1 and d >= 1."));
  }
  shape.pairs = dims[0] / 2;
  shape.dim = dims[1];
  shape.first_pair = first_pair;
  shape.own_pairs = own_rows / 2;
  if (first_pair < 0 || own_rows < 2 || own_rows % 2 != 0 || shape.own_pairs > shape.pairs - first_pair) {
    return ffi::Unexpected(
        invalid("the own pairs do not lie within the pairs of z. Use first_pair >= 0, pairs >= 1 "
                "and first_pair + pairs <= N."));
  }
  return shape;
}

}  // namespace
}  // namespace lowlevel_simclr
