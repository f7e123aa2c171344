// Views on CUDA: the arguments of the kernel (the "problem"), and the memory of one view.
#pragma once

#include <cstdint>

#include "../cuda/launch.cuh"
#include "../cuda/tensor_core.cuh"
#include "make_views.h"

namespace lowlevel_simclr {
namespace make_views_cuda {

// ---- Constants

// A view with at most kHeldSize pixels on a side stays in registers while it is made. Such a view is called "held". Any
// other view is called "large".
constexpr int kHeldSize = 32;
constexpr int kRows = 8;         // lines of a tile; each thread of the warp makes one pixel of each line
constexpr int kHeldWarps = 4;    // warps of a block that makes a held view
constexpr int kLargeWarps = 16;  // warps of a block that makes a large view
static_assert(kHeldSize <= kWarp && kHeldSize <= kRows * kHeldWarps, "a tile for each warp");

enum Operation { kBrightness, kContrast, kSaturation, kHue };

// ---- Problem

// Division by multiplication: n / divisor = n * multiplier >> shift for n < 2^31.
struct Divisor {
  uint32_t multiplier, shift;
};

struct Problem {
  ViewParamArrays params;
  const void* images;
  const float *mean, *inverse_std;
  char* slots;  // null if the slots lie in shared memory
  void* views;
  int64_t slot_bytes;
  int count, height, width, channels, size;
  PixelType pixels;
  DataType type;
  int blur_radius;
  Divisor twice_size;
};

// One colour operation. Brightness and contrast are affine: the value x of channel c becomes factor x + shift[c]. The
// shift of a contrast is set later, when the means are known.
struct Step {
  int operation;
  float factor;  // hue: the weight of the largest and of the smallest channel
  // Affine: the shift. Hue: the weights of a channel, of the next channel, and of the one before it.
  float shift[kMostChannels];
};

// The values that all threads of a block need to know about a view.
struct Recipe {
  int y, x, height, width;
  int steps;
  bool faulty, flip, grey, blurred;
  bool clip_first;  // whether to clip before the first step
  int clip;         // how the steps clip: a value of Clip (make_views_colour.cuh)
  Step step[4];
  float scale[kMostChannels], offset[kMostChannels];  // the output is scale x + offset
};

// The first part of a block's shared memory. After it come the tiles that the warps write out, and then the view.
struct Shared {
  Recipe recipe;
  double sums[kLargeWarps * kMostChannels];
};
constexpr int64_t kSharedHead = round_up(sizeof(Shared), 16);

// The memory of one view that is blurred. A held view is in registers between the two passes of the blur, so its two
// arrays can have the same place.
struct Slot {
  float *pixels, *blurred;  // (S, S, channels)
  float* gaussian;          // (radius + 1,)
};

__host__ __device__ inline Slot cut_slot(const Problem& p, char* base, int64_t* bytes) {
  const int64_t pixels = p.blur_radius > 0 ? static_cast<int64_t>(p.size) * p.size * p.channels : 0;
  Workspace<16> memory(base);
  Slot slot;
  slot.gaussian = memory.take<float>(p.blur_radius + 1);
  slot.pixels = memory.take<float>(pixels);
  slot.blurred = p.size <= kHeldSize ? slot.pixels : memory.take<float>(pixels);
  if (bytes != nullptr) *bytes = memory.bytes();
  return slot;
}

// A warp's part of a view.
struct Tile {
  int row, column;  // the lane's first pixel
  int rows;         // how many of the tile's lines lie in the view
  bool inside;      // whether the lane's column lies in the view
};

template <bool kHeld>
__device__ __forceinline__ Tile tile_of(int number, int size) {
  const int across = kHeld ? 1 : divide_up(size, kWarp), down = number / across;
  const int row = down * kRows,
            column = (number - down * across) * kWarp + static_cast<int>(threadIdx.x) % kWarp;
  return {row, column, size - row < kRows ? size - row : kRows, column < size};
}

__host__ __device__ constexpr int tiles_of(int size) {
  return divide_up(size, kWarp) * divide_up(size, kRows);
}

__device__ __forceinline__ int quotient(int n, const Divisor& by) {
  return static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(n)) * by.multiplier >> by.shift);
}

// Returns a / b within 2 units in the last place, if b is a normal number.
__device__ __forceinline__ float quotient(float a, float b) {
#ifdef __CUDACC__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

// Returns 1 / x within 1 unit in the last place, if x is a normal number. For any other x the result is infinite or 0.
__device__ __forceinline__ float reciprocal(float x) {
#ifdef __CUDACC__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1 / x;
#endif
}

// Returns x clipped to [0, 1]. The clip is a part of the instruction that computes x, so it costs nothing. NaN becomes
// 0.
__device__ __forceinline__ float saturated(float x) {
#ifdef __CUDACC__
  return __saturatef(x);
#else
  return x > 0 ? x < 1 ? x : 1.0f : 0.0f;
#endif
}

}  // namespace make_views_cuda
}  // namespace lowlevel_simclr
