// Views on CUDA: the colour operations on a tile in registers, and the means of the channels, which the contrast needs.
#pragma once

#include <cmath>

#include "../cuda/reduce.cuh"
#include "make_views_problem.cuh"

namespace lowlevel_simclr {
namespace make_views_cuda {

// at_least and at_most return NaN if x is NaN.
__device__ __forceinline__ float at_least(float x, float bound) {
#ifdef __CUDACC__
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(x), "f"(bound));
  return larger;
#else
  return x < bound || bound != bound ? bound : x;
#endif
}

__device__ __forceinline__ float at_most(float x, float bound) {
#ifdef __CUDACC__
  float less;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(less) : "f"(x), "f"(bound));
  return less;
#else
  return x > bound || bound != bound ? bound : x;
#endif
}

__device__ __forceinline__ float clamped(float x, float low, float high) {
  return at_most(at_least(x, low), high);
}

// How a step clips pixels to [0, 1]. kNone does not clip. kFree costs nothing but turns NaN into 0, so it is used only
// if no pixel can be NaN. kNanStays keeps NaN.
enum Clip { kNone, kFree, kNanStays };

template <Clip kClip>
__device__ __forceinline__ float clipped(float x) {
  return kClip == kNone ? x : kClip == kFree ? saturated(x) : at_most(at_least(x, 0), 1);
}

template <Clip kClip, int kChannels>
__device__ __forceinline__ void affine(float factor, const float (&shift)[kMostChannels],
                                       float (&x)[kRows][kChannels]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) x[r][c] = clipped<kClip>(factor * x[r][c] + shift[c]);
  }
}

__device__ __forceinline__ float largest_of(const float (&x)[3]) { return fmaxf(x[0], fmaxf(x[1], x[2])); }
__device__ __forceinline__ float least_of(const float (&x)[3]) { return fminf(x[0], fminf(x[1], x[2])); }

// If clip is set, the factor g is limited to V / C (make_views.h). This matters only if g > 1. For a grey pixel C is 0,
// so V / C is infinite or NaN, and the limit has no effect.
template <Clip kClip, bool kBounded>
__device__ __forceinline__ void saturate(float asked, float (&x)[kRows][3]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float value = largest_of(x[r]);
    const float factor = kBounded ? fminf(asked, value * reciprocal(value - least_of(x[r]))) : asked;
#pragma unroll
    for (int c = 0; c < 3; ++c) x[r][c] = clipped<kClip>(value - factor * (value - x[r][c]));
  }
}

// Turns the hue by the formula of make_views_tiles.cc, which does not compute the hue of the pixel. The formula here
// gives V - t instead of t. Every channel stays between the smallest and the largest channel of its pixel.
__device__ __forceinline__ void turn(const Step& step, float (&x)[kRows][3]) {
  const float own = step.shift[0], after = step.shift[1], before = step.shift[2];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float value = largest_of(x[r]), least = least_of(x[r]), common = step.factor * (value + least);
    const float red = x[r][0], green = x[r][1], blue = x[r][2];
    x[r][0] = clamped(own * red + (after * green + (before * blue + common)), least, value);
    x[r][1] = clamped(own * green + (after * blue + (before * red + common)), least, value);
    x[r][2] = clamped(own * blue + (after * red + (before * green + common)), least, value);
  }
}

__device__ __forceinline__ void make_grey(float (&x)[kRows][3]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r][0] = x[r][1] = x[r][2] = 0.2989f * x[r][0] + (0.5870f * x[r][1] + 0.1140f * x[r][2]);
  }
}

template <Clip kClip, int kChannels>
__device__ __forceinline__ void run_clipped(const Step& step, float (&x)[kRows][kChannels]) {
  if (step.operation <= kContrast) affine<kClip>(step.factor, step.shift, x);
  if constexpr (kChannels == 3) {
    if (step.operation == kSaturation && kClip != kNone && step.factor > 1) {
      saturate<kClip, true>(step.factor, x);
    } else if (step.operation == kSaturation) {
      saturate<kClip, false>(step.factor, x);
    }
  }
}

template <int kChannels>
__device__ __forceinline__ void run_step(const Recipe& v, const Step& step, float (&x)[kRows][kChannels]) {
  if constexpr (kChannels == 3) {
    if (step.operation == kHue) return turn(step, x);
  }
  if (v.clip == kNone) return run_clipped<kNone>(step, x);
  if (v.clip == kFree) return run_clipped<kFree>(step, x);
  run_clipped<kNanStays>(step, x);
}

// Clips before the first step, if the recipe (the list of steps for the view) asks for that.
template <int kChannels>
__device__ __forceinline__ void clip_first(const Recipe& v, float (&x)[kRows][kChannels]) {
  const float nothing[kMostChannels] = {};
  if (v.clip_first) affine<kNanStays>(1.0f, nothing, x);
}

// ---- Means

// Sums four numbers of each lane over a warp. Lanes 8 c to 8 c + 7 get the sum of number c.
template <typename Sum>
__device__ __forceinline__ Sum sum_four(const Sum (&x)[kMostChannels]) {
  const int lane = threadIdx.x % kWarp;
  const bool upper = lane & 16, odd = lane & 8;
  const Sum first = (upper ? x[2] : x[0]) + __shfl_xor_sync(kAllLanes, upper ? x[0] : x[2], 16);
  const Sum second = (upper ? x[3] : x[1]) + __shfl_xor_sync(kAllLanes, upper ? x[1] : x[3], 16);
  const Sum mine = (odd ? second : first) + __shfl_xor_sync(kAllLanes, odd ? first : second, 8);
  return reduce_lanes(mine, 8, Add());
}

template <typename Sum, int kChannels>
__device__ __forceinline__ void add_tile(const Tile& tile, const float (&x)[kRows][kChannels],
                                         Sum (&sums)[kMostChannels]) {
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    float sum = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < tile.rows) sum += x[r][c];
    }
    if (tile.inside) sums[c] += static_cast<Sum>(sum);
  }
}

// Sets the shift of a contrast step from the sums of the pixels, which it adds up over the block.
template <int kWarps, typename Sum>
__device__ __forceinline__ void set_shift(const Problem& p, const Sum (&sums)[kMostChannels], Shared* shared,
                                          Step* step) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Sum* all = reinterpret_cast<Sum*>(shared->sums);
  const Sum own = sum_four(sums);
  if (lane % 8 == 0) all[warp * kMostChannels + lane / 8] = own;
  __syncthreads();
  if (warp == 0) {
    Sum sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w += 8) {
      if (w + lane % 8 < kWarps) sum += all[(w + lane % 8) * kMostChannels + lane / 8];
    }
    const Sum pixels = static_cast<Sum>(p.size) * static_cast<Sum>(p.size);
    const Sum mean = reduce_lanes(sum, 8, Add()) / pixels;
    if (lane % 8 == 0)
      step->shift[lane / 8] = static_cast<float>((1 - static_cast<Sum>(step->factor)) * mean);
  }
  __syncthreads();
}

}  // namespace make_views_cuda
}  // namespace lowlevel_simclr
