// Code for both handlers that draw the views' parameters, on the host and on CUDA: the arrays of a call, and the check
// of their sizes. A handler is a function that XLA calls through its foreign function interface (FFI).
#pragma once

#include "../glue/xla_ffi.h"
#include "draw_view_params.h"

namespace lowlevel_simclr {
namespace {

using Index = ffi::Buffer<ffi::S64, 1>;
using Sizes = ffi::Buffer<ffi::S64, 2>;
using Whole = ffi::Buffer<ffi::S64, 0>;
using Recipe = ffi::Buffer<ffi::F64, 1>;
using Four = ffi::Buffer<ffi::S32, 2>;
using Flag = ffi::Buffer<ffi::PRED, 1>;
using Number = ffi::Buffer<ffi::F32, 1>;
using Fours = ffi::Result<Four>;
using Flags = ffi::Result<Flag>;
using Numbers = ffi::Result<Number>;

// Adds the arguments and results of a call to a binding (the list of a handler's arguments), after those that the
// platform adds. The arguments are index, sizes, key, epoch and recipe. The results are the parameters in the order of
// draw_view_params_op.cc.
template <typename Binding>
auto with_arrays(Binding&& binding) {
  return gives<Four, Flag, Number, Number, Number, Number, Number, Four, Flag, Flag, Number>(
      takes<Index, Sizes, Index, Whole, Recipe>(std::move(binding)));
}

ffi::Error check_lengths(const Index& index, const Sizes& sizes, const Index& key, const Recipe& recipe) {
  const int64_t frames = sizes.dimensions()[0];
  if ((frames != 1 && frames != index.dimensions()[0]) || sizes.dimensions()[1] != 2)
    return invalid("sizes must be (N, 2) or (1, 2).");
  if (key.dimensions()[0] == 2 && recipe.dimensions()[0] == kRecipeNumbers) return ffi::Error::Success();
  return invalid("key must be two words and recipe 25 numbers.");
}

}  // namespace
}  // namespace lowlevel_simclr
