// Rounding up, for integers that are not negative.
//
// X_tiles.cc must not use these functions, because it is compiled once for each instruction set. If several object
// files have the same inline function, the linker keeps only one version of it. That could be the one with AVX-512
// code, which would then run on every processor, also on those without AVX-512.
#pragma once

#include "host_device.h"

namespace lowlevel_simclr {

// Returns the smallest integer that is at least value / by.
template <typename Value, typename By>
LOWLEVEL_SIMCLR_HOST_DEVICE constexpr auto divide_up(Value value, By by) {
  return (value + by - 1) / by;
}

// Returns the smallest multiple of `multiple` that is at least `value`. It does not call divide_up: with that call,
// nvcc 13.0 allocates the registers of make_views_kernel differently.
template <typename Value, typename Multiple>
LOWLEVEL_SIMCLR_HOST_DEVICE constexpr auto round_up(Value value, Multiple multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace lowlevel_simclr
