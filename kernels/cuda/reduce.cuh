// Sums and maxima over a warp and a block, in one fixed order: the same bits every time.
#pragma once

#include "launch.cuh"

namespace lowlevel_simclr {

struct Add {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// NaN wins, unlike in fmax.
struct Largest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// Over lanes that differ in the bits below `lanes`, a power of two; every lane gets the result.
template <typename Operation, typename T>
__device__ __forceinline__ T reduce_lanes(T value, int lanes, Operation operation) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    value = operation(value, __shfl_xor_sync(kAllLanes, value, mask));
  }
  return value;
}

template <typename Operation, typename T>
__device__ __forceinline__ T reduce_warp(T value, Operation operation) {
  return reduce_lanes(value, kWarp, operation);
}

// Over a block of a whole number of warps, at most 32; `scratch` holds one T a warp and may be used again at once.
// Every thread gets the result.
template <typename Operation, typename T>
__device__ T reduce_block(T value, T neutral, T* scratch, Operation operation) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  value = reduce_warp(value, operation);
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = reduce_warp(lane < warps ? scratch[lane] : neutral, operation);
  __syncthreads();
  return value;
}

}  // namespace lowlevel_simclr
