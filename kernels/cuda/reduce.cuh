// Sums and maxima over a warp and over a block. The order of the operations is fixed, so the results have the same bits
// every time.
#pragma once

#include "launch.cuh"

namespace lowlevel_simclr {

struct Add {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// Returns the larger number. Unlike fmax, it returns NaN if one of the two is NaN.
struct Largest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

// Reduces over groups of `lanes` neighbouring lanes. `lanes` is a power of two. Every lane gets the result of its
// group.
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

// Reduces over a block of at most 32 full warps. Every thread gets the result. `scratch` holds one T for each warp. The
// caller may use `scratch` again at once.
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
