// Sums and maxima over a warp and a block, in one fixed order, so they have the same bits every time.
#pragma once

#include "launch.cuh"

namespace lowlevel_simclr {

struct Add {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The larger one, or NaN if one of the two is NaN (unlike fmax).
struct Largest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// Reduces over the lanes that differ in the bits below `lanes`, a power of two. Every lane gets the result.
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

// Reduces over a block of at most 32 whole warps. `scratch` holds one T for each warp and may be used again at once.
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
