// Rounding up, for integers that are not negative.
//
// X_tiles.cc, which is compiled once for each instruction set, must not use these functions: the linker merges equal
// functions of different objects and might keep the AVX-512 code (vectors.h).
#pragma once

#include "host_device.h"

namespace lowlevel_simclr {

// The least integer that is not below value / by.
template <typename Value, typename By>
LOWLEVEL_SIMCLR_HOST_DEVICE constexpr auto divide_up(Value value, By by) {
  return (value + by - 1) / by;
}

// The least multiple of `multiple` that is not below `value`. It does not call divide_up: with the call, nvcc 13.0
// allocates the registers of make_views_kernel differently.
template <typename Value, typename Multiple>
LOWLEVEL_SIMCLR_HOST_DEVICE constexpr auto round_up(Value value, Multiple multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace lowlevel_simclr
