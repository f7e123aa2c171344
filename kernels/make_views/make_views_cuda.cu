// Views on CUDA devices. Contract: make_views_cuda.h; pixels: make_views.h.
//
// Mapping. A block makes a view, a warp tiles of 32 columns and 8 lines of it, a lane the 8 pixels of a column: they
// stay in registers from the crop to the output, and lines of the image that two view lines share are read once. Views
// of up to 32 pixels are one tile for each of 4 warps, so contrast's means cost a sum over the block and nothing is
// stored. Larger views are cropped again after the means: cheaper than a way to memory and back. Only a blur needs the
// pixels of other threads: the view then lies in shared memory, or in a slot of the workspace, one for each of a fixed
// number of blocks, in the L2 cache as far as it goes. A tile goes out through the warp's own shared memory, 16 bytes a
// store. One warp reads the view's parameters and decides the steps once: loops over pixels have no branch of a pixel's
// own.
//
// Bytes at 32 pixels and bfloat16: image 3,072 (from the L2 cache the second time), view 6,144. Issuing instructions is
// the limit, not memory: 0.26 ms for 32,768 views on an H200. A block of 256 threads that kept every pixel in shared
// memory, with 64-bit indices and divisions and every operation's branch for each pixel, took 2.30 (docs/gpu.md).
//
// Weights of the crop are integers over their sum: w_ij ~ max(0, 2M - |(2j+1) S - (2i+1) length|), M = max(length, S).
#include <cfloat>
#include <cmath>
#include <cstring>

#include "../cuda/reduce.cuh"
#include "../cuda/tensor_core.cuh"
#include "make_views.h"
#include "make_views_cuda.h"

namespace lowlevel_simclr {
namespace {

// ---- Constants

#ifndef LOWLEVEL_SIMCLR_BLOCKS_WANTED
#define LOWLEVEL_SIMCLR_BLOCKS_WANTED 264  // two for each processor of an H100
#endif

constexpr int kRows = 8;                     // of a tile, a thread's
constexpr int kHeldWarps = 4;                // of a block whose view stays in registers
constexpr int kLargeWarps = 16;              // of any other
constexpr int kHeldSize = 32;                // pixels a side
constexpr int64_t kSharedBytes = 96 * 1024;  // at most; two blocks fit sm_80
constexpr int64_t kSlots =
    LOWLEVEL_SIMCLR_BLOCKS_WANTED;   // blocks that work at once where views lie in the workspace
constexpr int64_t kLargest = 32767;  // pixels a side: (2 i + 1) length + 3 length is below 2^31
constexpr int kParams = 11;
static_assert(kHeldSize <= kWarp && kHeldSize <= kRows * kHeldWarps, "a tile for each warp");
static_assert(sizeof(ViewParamArrays) == kParams * sizeof(void*), "pointers only, in the order of `params`");

enum Operation { kBrightness, kContrast, kSaturation, kHue };

// ---- Problem

// n / divisor = n * multiplier >> shift for n < 2^31.
struct Divisor {
  uint32_t multiplier, shift;
};

struct Problem {
  ViewParamArrays params;
  const void* images;
  const float *mean, *inverse_std;
  char* slots;  // null: shared memory
  void* views;
  int64_t slot_bytes;
  int count, height, width, channels, size;
  PixelType pixels;
  DataType type;
  int blur_radius;
  Divisor twice_size;
};

// One operation. Affine: x = factor x + shift_c; contrast's shift follows from the means.
struct Step {
  int operation;
  float factor;                // of the hue, what the largest and the least channel count
  float shift[kMostChannels];  // affine; of the hue, what a channel, the next and the one before it count
};

// What all threads of a block need of a view.
struct Recipe {
  int y, x, height, width;
  int steps;
  bool faulty, flip, grey, blurred;
  bool clip_first;  // in front of the first step
  int clip;         // of the steps, a Clip
  Step step[4];
  float scale[kMostChannels], offset[kMostChannels];  // of the output: scale x + offset
};

// Shared memory in front of a view.
struct Shared {
  Recipe recipe;
  double sums[kLargeWarps * kMostChannels];
};
constexpr int64_t kSharedHead = round_up(sizeof(Shared), 16);

// One view's memory where it is blurred.
struct Slot {
  float *pixels, *blurred;  // (S, S, channels); the same where the view is held in registers between the two
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
  int row, column;  // of the lane's first pixel
  int rows;         // that lie in the view
  bool inside;      // the lane's column does
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

// a / b within 2 units in the last place where b is a normal number.
__device__ __forceinline__ float quotient(float a, float b) {
#ifdef __CUDACC__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

// 1 / x within 1 unit in the last place where x is a normal number, else infinite or 0.
__device__ __forceinline__ float reciprocal(float x) {
#ifdef __CUDACC__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1 / x;
#endif
}

// x clipped to [0, 1] at no cost; NaN becomes 0.
__device__ __forceinline__ float saturated(float x) {
#ifdef __CUDACC__
  return __saturatef(x);
#else
  return x > 0 ? x < 1 ? x : 1.0f : 0.0f;
#endif
}

// ---- Crop

// Where 2 M - |distance| is above 0, in pixels of the box: [first, end).
struct Span {
  int first, end;
};

__device__ __forceinline__ Span span_of(int centre, int most, int length, int size,
                                        const Divisor& twice_size) {
  const int low = centre - 2 * most - size, high = centre + 2 * most - size - 1;
  const int end = quotient(high, twice_size) + 1;
  return {low < 0 ? 0 : quotient(low, twice_size) + 1, end < length ? end : length};
}

// Column k of a box that is not wider than the view: two neighbours, the same one twice at the borders, with integer
// weights that sum to 2 S.
template <typename Pixel, int kChannels>
struct TwoAcross {
  const Pixel *left, *right;
  float near, far;

  __device__ __forceinline__ TwoAcross(const Problem& p, const Recipe& v, const Pixel* line, int k) {
    const int raised = (2 * k + 1) * v.width + p.size, place = quotient(raised, p.twice_size) - 1;
    const int rest = raised - 2 * p.size * (place + 1), channels = kChannels == 3 ? 3 : p.channels;
    left = line + (place < 0 ? 0 : place) * channels;
    right = line + (place + 1 < v.width ? place + 1 : v.width - 1) * channels;
    near = static_cast<float>(2 * p.size - rest);
    far = static_cast<float>(rest);
  }

  __device__ __forceinline__ void read(int channels, float (&x)[kChannels]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c < channels) x[c] = near * static_cast<float>(left[c]) + far * static_cast<float>(right[c]);
    }
  }

  __device__ __forceinline__ void advance(uint32_t pitch) {
    left += pitch;
    right += pitch;
  }
};

template <typename Pixel>
__device__ __forceinline__ float full_scale() {
  return sizeof(Pixel) == 1 ? 255.0f : sizeof(Pixel) == 2 ? 65535.0f : 1.0f;
}

// Pixels of integers are at most 1 but for rounding, and never NaN.
template <typename Pixel>
__device__ __forceinline__ float repaired(float x) {
  return sizeof(Pixel) < sizeof(float) ? saturated(x) : x;
}

// A tile of a view that is not smaller than its box: from one line to the next the box's line advances by one at most,
// and lines in front of the box or behind it are its first or last.
template <typename Pixel, int kChannels>
__device__ __forceinline__ void crop_enlarged(const Problem& p, const Recipe& v, const Pixel* box, int i,
                                              int k, float (&x)[kRows][kChannels]) {
  const int channels = kChannels == 3 ? 3 : p.channels, twice = 2 * p.size, pitch = p.width * channels;
  const int raised = (2 * i + 1) * v.height + p.size, begin = quotient(raised, p.twice_size);
  int below = begin, rest = raised - twice * begin;
  const int first = begin < 1 ? 0 : begin - 1;
  TwoAcross<Pixel, kChannels> across(p, v, box + static_cast<uint32_t>(first) * static_cast<uint32_t>(pitch),
                                     k);
  float upper[kChannels] = {}, lower[kChannels] = {};
  across.read(channels, upper);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) lower[c] = upper[c];
  if (begin > 0 && begin < v.height) {
    across.advance(pitch);
    across.read(channels, lower);
  }
  const float whole = quotient(1.0f, static_cast<float>(twice) * full_scale<Pixel>());
  const float share = quotient(whole, static_cast<float>(twice));
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r > 0 && (rest += 2 * v.height) >= twice) {
      rest -= twice;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) upper[c] = lower[c];
      across.advance(++below < v.height ? pitch : 0);
      across.read(channels, lower);
    }
    const float far = static_cast<float>(rest) * share, near = whole - far;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) x[r][c] = repaired<Pixel>(near * upper[c] + far * lower[c]);
  }
}

// A tile of any view: every line of the box that it needs, resized across, is added to those lines of the view that it
// counts in.
template <typename Pixel, int kChannels>
__device__ __forceinline__ void crop_reduced(const Problem& p, const Recipe& v, const Pixel* box, int i,
                                             int k, float (&x)[kRows][kChannels]) {
  const int channels = kChannels == 3 ? 3 : p.channels, twice = 2 * p.size, pitch = p.width * channels;
  const int wide = v.width > p.size ? v.width : p.size, high = v.height > p.size ? v.height : p.size;
  const int last = i + kRows < p.size ? i + kRows - 1 : p.size - 1;
  const Span across = span_of((2 * k + 1) * v.width, wide, v.width, p.size, p.twice_size);
  const int begin = span_of((2 * i + 1) * v.height, high, v.height, p.size, p.twice_size).first;
  const int end = span_of((2 * last + 1) * v.height, high, v.height, p.size, p.twice_size).end;
  // Distances across are at most 2 M < 2^16: exact in float.
  const float leftmost = static_cast<float>((2 * across.first + 1) * p.size - (2 * k + 1) * v.width);
  const float width = static_cast<float>(2 * wide), stride = static_cast<float>(twice);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) x[r][c] = 0;
  }
  float all = 0;
  for (int j = begin; j < end; ++j) {
    const Pixel* pixel =
        box + static_cast<uint32_t>(j) * static_cast<uint32_t>(pitch) + across.first * channels;
    float line[kChannels] = {}, distance = leftmost;
    all = 0;
    for (int t = across.first; t < across.end; ++t, pixel += channels, distance += stride) {
      const float share = width - fabsf(distance);
      all += share;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (c < channels) line[c] += share * static_cast<float>(pixel[c]);
      }
    }
    const int distance_down = (2 * j + 1) * p.size - (2 * i + 1) * v.height;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int share = 2 * high - abs(distance_down - 2 * r * v.height);
      if (share <= 0) continue;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) x[r][c] += static_cast<float>(share) * line[c];
    }
  }
  // A line's sum of weights by the lane of its number.
  const int row = i + static_cast<int>(threadIdx.x) % kRows;
  const int centre = (2 * (row < last ? row : last) + 1) * v.height;
  uint32_t total = 0;
#pragma unroll 1
  for (int j = begin; j < end; ++j) {
    const int share = 2 * high - abs((2 * j + 1) * p.size - centre);
    total += static_cast<uint32_t>(share > 0 ? share : 0);
  }
  const float across_all = all * full_scale<Pixel>(), down_all = static_cast<float>(total);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float scale = quotient(1.0f, across_all * __shfl_sync(kAllLanes, down_all, r));
#pragma unroll
    for (int c = 0; c < kChannels; ++c) x[r][c] = repaired<Pixel>(x[r][c] * scale);
  }
}

template <typename Pixel, int kChannels>
__device__ __forceinline__ void crop_typed(const Problem& p, const Recipe& v, int64_t image, const Tile& tile,
                                           float (&x)[kRows][kChannels]) {
  const int column = tile.inside ? tile.column : p.size - 1, k = v.flip ? p.size - 1 - column : column;
  const Pixel* box = static_cast<const Pixel*>(p.images) +
                     ((image * p.height + v.y) * p.width + v.x) * (kChannels == 3 ? 3 : p.channels);
  if (v.height <= p.size && v.width <= p.size) return crop_enlarged(p, v, box, tile.row, k, x);
  crop_reduced(p, v, box, tile.row, k, x);
}

// The type of the image decides here and nowhere else: one kernel for each type of the views.
template <int kChannels>
__device__ __forceinline__ void crop(const Problem& p, const Recipe& v, int64_t image, const Tile& tile,
                                     float (&x)[kRows][kChannels]) {
  if (p.pixels == PixelType::kUint8) return crop_typed<uint8_t>(p, v, image, tile, x);
  if (p.pixels == PixelType::kUint16) return crop_typed<uint16_t>(p, v, image, tile, x);
  crop_typed<float>(p, v, image, tile, x);
}

// ---- Colour

// NaN stays.
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

// How pixels stay in [0, 1]: not at all, at no cost where they cannot be NaN, or so that NaN stays.
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

// The bound g C <= V matters only where g > 1. A grey pixel's is infinite or NaN, and bounds nothing.
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

// make_views_tiles.cc's turn without an angle, V - t instead of t: pixels stay between their least and largest channel.
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

// In front of the first step.
template <int kChannels>
__device__ __forceinline__ void clip_first(const Recipe& v, float (&x)[kRows][kChannels]) {
  const float nothing[kMostChannels] = {};
  if (v.clip_first) affine<kNanStays>(1.0f, nothing, x);
}

// ---- The recipe

// One view's parameters: every load is on its way before the first is waited for.
struct Given {
  int box[4], operation;  // that of the lane's place in the order
  bool flip, clip, grey;
  float brightness, contrast, saturation, hue, shift, sigma;
};

__device__ __forceinline__ Given read_params(const ViewParamArrays& p, int64_t row) {
  const int32_t *box = p.box + 4 * row, *order = p.order + 4 * row;
  return {{box[0], box[1], box[2], box[3]},
          order[threadIdx.x % 4],
          p.flip[row],
          p.clip[row],
          p.grey[row],
          p.brightness[row],
          p.contrast[row],
          p.saturation[row],
          p.hue[row],
          p.brightness_shift[row],
          p.blur_sigma[row]};
}

__device__ __forceinline__ bool is_neutral(const Given& g) {
  const int operation = g.operation;
  return operation == kBrightness   ? g.brightness == 1 && g.shift == 0
         : operation == kContrast   ? g.contrast == 1
         : operation == kSaturation ? g.saturation == 1
         : operation == kHue        ? g.hue == 0
                                    : true;
}

__device__ __forceinline__ Step hue_step(float hue) {
  const float sixths = 6 * (hue - floorf(hue));
  const float r = clamped(fabsf(sixths - 3) - 1, 0, 1), g = clamped(2 - fabsf(sixths - 2), 0, 1),
              b = clamped(2 - fabsf(sixths - 4), 0, 1);
  return {kHue, 2 - r - g - b, {2 * r - 1, 2 * b - 1, 2 * g - 1, 0}};
}

__device__ __forceinline__ Step step_of(const Given& g) {
  const int operation = g.operation;
  if (operation == kBrightness) return {kBrightness, g.brightness, {g.shift, g.shift, g.shift, g.shift}};
  if (operation == kContrast) return {kContrast, g.contrast, {}};
  if (operation == kSaturation) return {kSaturation, g.saturation > 0 ? g.saturation : 0.0f, {}};
  return hue_step(g.hue);
}

__device__ __forceinline__ bool is_faulty(const Problem& p, const Given& g) {
  const int y = g.box[0], x = g.box[1], height = g.box[2], width = g.box[3];
  const bool inside =
      y >= 0 && x >= 0 && height >= 1 && width >= 1 && y <= p.height - height && x <= p.width - width;
  const bool coloured = g.grey || g.saturation != 1 || g.hue != 0;
  return !inside || (coloured && p.channels != 3);
}

// Whether no pixel can become NaN.
__device__ __forceinline__ bool is_tame(const Problem& p, const Given& g) {
  constexpr float kMost = 1e9f;
  return p.pixels != PixelType::kFloat32 && fabsf(g.brightness) < kMost && fabsf(g.shift) < kMost &&
         fabsf(g.contrast) < kMost && fabsf(g.saturation) < kMost && fabsf(g.hue) < kMost;
}

// By one warp, a lane for each place in the order. Neutral steps are left out. All that is left of them is their clip,
// and that of the first one alone, where the image's pixels may lie outside [0, 1].
__device__ void write_recipe(const Problem& p, const Given& g, Recipe* v) {
  const int lane = threadIdx.x % kWarp, counts = is_neutral(g) ? 0 : 1;
  int before = 0, steps = 0;
  for (int s = 0; s < 4; ++s) {
    steps += __shfl_sync(kAllLanes, counts, s);
    if (s + 1 == lane) before = steps;
  }
  if (lane < 4 && counts != 0) v->step[before] = step_of(g);
  if (lane > 0) return;
  v->y = g.box[0], v->x = g.box[1], v->height = g.box[2], v->width = g.box[3];
  v->faulty = is_faulty(p, g), v->flip = g.flip, v->grey = g.grey;
  v->blurred = g.sigma > 0 && p.blur_radius > 0;
  v->steps = steps;
  const bool affine_first = counts != 0 && g.operation <= kContrast;
  v->clip = !g.clip ? kNone : is_tame(p, g) ? kFree : kNanStays;
  v->clip_first = g.clip && !affine_first && p.pixels == PixelType::kFloat32;
}

// Weights 0..radius of the Gaussian, by one warp. In float: a weight w has an error of w |log w| roundings.
__device__ void fill_gaussian(float sigma, int radius, float* weight) {
  const int lane = threadIdx.x % kWarp;
  const auto share = [sigma](int k) {
    const float distance = static_cast<float>(k) / sigma;
    return expf(-0.5f * distance * distance);
  };
  float sum = 0;

#pragma unroll 1
  for (int k = lane; k <= radius; k += kWarp) sum += (k == 0 ? 1.0f : 2.0f) * share(k);
  sum = reduce_warp(sum, Add());
#pragma unroll 1
  for (int k = lane; k <= radius; k += kWarp) weight[k] = share(k) / sum;
}

// What a view needs, by the block's first three warps.
__device__ __forceinline__ void prepare(const Problem& p, int64_t row, float* gaussian, Recipe* v) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (warp == 0) write_recipe(p, read_params(p.params, row), v);
  if (warp == 1 && lane < p.channels) {
    v->scale[lane] = p.inverse_std[lane];
    v->offset[lane] = -p.mean[lane] * p.inverse_std[lane];
  }
  if (warp == 2 && p.blur_radius > 0) {
    const float sigma = p.params.blur_sigma[row];
    if (sigma > 0) fill_gaussian(sigma, p.blur_radius, gaussian);
  }
}

// ---- Means

// The sums of four numbers over a warp, that of number c in lanes 8 c to 8 c + 7.
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

// Contrast's shift from the block's sums of the pixels.
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

// ---- Blur

__device__ __forceinline__ int mirrored(int place, int size) {
  if (place < 0) place = -place;
  return place < size ? place : 2 * (size - 1) - place;
}

// A tile of `from`, (S, S, channels), blurred along one direction.
template <bool kDown, int kChannels>
__device__ __forceinline__ void blur_tile(const Problem& p, const Tile& tile, const float* weight,
                                          const float* from, float (&x)[kRows][kChannels]) {
  const int channels = kChannels == 3 ? 3 : p.channels, column = tile.inside ? tile.column : p.size - 1;
  const uint32_t pitch = static_cast<uint32_t>(p.size) * channels;
  const auto row_of = [&](int r) { return tile.row + (r < tile.rows ? r : tile.rows - 1); };
  const auto pixel = [&](int row, int column) { return from + row * pitch + column * channels; };
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float* own = pixel(row_of(r), column);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) x[r][c] = c < channels ? weight[0] * own[c] : 0.0f;
  }
  for (int k = 1; k <= p.blur_radius; ++k) {
    const float share = weight[k];
    const int left = mirrored(column - k, p.size), right = mirrored(column + k, p.size);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = row_of(r);
      const float* before = kDown ? pixel(mirrored(row - k, p.size), column) : pixel(row, left);
      const float* after = kDown ? pixel(mirrored(row + k, p.size), column) : pixel(row, right);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        if (c < channels) x[r][c] += share * (before[c] + after[c]);
      }
    }
  }
}

template <int kChannels>
__device__ __forceinline__ void keep_tile(const Problem& p, const Tile& tile,
                                          const float (&x)[kRows][kChannels], float* to) {
  const int channels = kChannels == 3 ? 3 : p.channels;
  float* own = to + (static_cast<uint32_t>(tile.row) * p.size + tile.column) * channels;
#pragma unroll
  for (int r = 0; r < kRows; ++r, own += p.size * channels) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (tile.inside && r < tile.rows && c < channels) own[c] = x[r][c];
    }
  }
}

// ---- Output

__device__ __forceinline__ void round_into(float* to, float x) { *to = x; }
__device__ __forceinline__ void round_into(Float16Bits* to, float x) { narrow(to, x); }
__device__ __forceinline__ void round_into(Bfloat16Bits* to, float x) {
#ifdef __CUDACC__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
#else
  narrow(to, x);
#endif
}

// Both 16-byte aligned where kWide. By one warp.
template <bool kWide, typename Output>
__device__ __forceinline__ void copy(const Output* from, int count, Output* to) {
  constexpr int kTogether = 16 / sizeof(Output);
  const int lane = threadIdx.x % kWarp, whole = kWide ? count / kTogether : 0;
#pragma unroll 4
  for (int i = lane; i < whole; i += kWarp)
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll 1
  for (int at = whole * kTogether + lane; at < count; at += kWarp) to[at] = from[at];
}

// A tile's lines, one behind the other in the warp's memory, into the view: held tiles are whole lines.
template <bool kHeld, typename Output>
__device__ __forceinline__ void copy_tile(const Tile& tile, int length, int pitch, const Output* stage,
                                          Output* to) {
  constexpr int kTogether = 16 / sizeof(Output);
  const bool aligned = reinterpret_cast<uintptr_t>(to) % 16 == 0;
  if (kHeld)
    return aligned ? copy<true>(stage, tile.rows * length, to) : copy<false>(stage, tile.rows * length, to);
  const int pieces = length / kTogether, lane = threadIdx.x % kWarp;
  if (aligned && pitch % kTogether == 0) {
    for (int i = lane; i < tile.rows * pieces; i += kWarp) {
      const int row = i / pieces, at = i % pieces * kTogether;
      *reinterpret_cast<uint4*>(to + static_cast<uint32_t>(row) * pitch + at) =
          reinterpret_cast<const uint4*>(stage)[i];
    }
  } else {
    for (int row = 0; row < tile.rows; ++row)
      copy<false>(stage + row * length, length, to + static_cast<uint32_t>(row) * pitch);
  }
}

// Scaled and rounded into the warp's shared memory, and from there out, 16 bytes at a time where the view allows it.
template <bool kHeld, typename Output, int kChannels>
__device__ __forceinline__ void write_tile(const Problem& p, const Recipe& v, const Tile& tile,
                                           const float (&x)[kRows][kChannels], Output* stage, Output* view) {
  const int channels = kChannels == 3 ? 3 : p.channels, lane = threadIdx.x % kWarp, left = tile.column - lane;
  const int length = (p.size - left < kWarp ? p.size - left : kWarp) * channels, pitch = p.size * channels;
  __syncwarp();  // others may still read the tile before
  if (tile.inside) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (c >= channels) continue;
      const float scale = v.scale[c], offset = v.offset[c];
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        round_into(stage + r * length + lane * channels + c, scale * x[r][c] + offset);
    }
  }
  __syncwarp();
  copy_tile<kHeld>(tile, length, pitch, stage,
                   view + static_cast<uint32_t>(tile.row) * pitch + left * channels);
}

// ---- One view

template <typename Output>
__host__ __device__ constexpr int64_t stage_bytes(int channels) {
  return kRows * kWarp * channels * static_cast<int64_t>(sizeof(Output));
}

// A view of one tile for each warp at most: its pixels stay in registers.
template <typename Output, int kChannels>
__device__ void make_held(const Problem& p, const Recipe& v, const Slot& slot, int64_t image, Shared* shared,
                          Output* stage, Output* view) {
  const int warp = threadIdx.x / kWarp;
  const Tile tile = tile_of<true>(warp, p.size);
  const bool used = tile.rows > 0;
  float x[kRows][kChannels] = {};
  if (used) crop(p, v, image, tile, x);
  clip_first(v, x);
  for (int s = 0; s < v.steps; ++s) {
    Step& step = shared->recipe.step[s];
    if (step.operation == kContrast) {
      float sums[kMostChannels] = {};
      if (used) add_tile(tile, x, sums);
      set_shift<kHeldWarps>(p, sums, shared, &step);
    }
    run_step(v, step, x);
  }
  if constexpr (kChannels == 3) {
    if (v.grey) make_grey(x);
  }
  if (v.blurred) {
    if (used) keep_tile(p, tile, x, slot.pixels);
    __syncthreads();
    if (used) blur_tile<true>(p, tile, slot.gaussian, slot.pixels, x);
    __syncthreads();
    if (used) keep_tile(p, tile, x, slot.pixels);
    __syncwarp();  // a tile holds whole lines
    if (used) blur_tile<false>(p, tile, slot.gaussian, slot.pixels, x);
  }
  if (used) write_tile<true>(p, v, tile, x, stage, view);
}

// Crop and colours of one tile up to step `end`.
template <int kChannels>
__device__ __forceinline__ void colour_tile(const Problem& p, const Recipe& v, int64_t image,
                                            const Tile& tile, int end, float (&x)[kRows][kChannels]) {
  crop(p, v, image, tile, x);
  clip_first(v, x);
  for (int s = 0; s < end; ++s) run_step(v, v.step[s], x);
  if constexpr (kChannels == 3) {
    if (end == v.steps && v.grey) make_grey(x);
  }
}

__device__ __forceinline__ int next_contrast(const Recipe& v, int from) {
  while (from < v.steps && v.step[from].operation != kContrast) ++from;
  return from;
}

// Any other view: its tiles are made once for each contrast, and again.
template <typename Output, int kChannels>
__device__ void make_large(const Problem& p, const Recipe& v, const Slot& slot, int64_t image, Shared* shared,
                           Output* stage, Output* view) {
  const int warp = threadIdx.x / kWarp, tiles = tiles_of(p.size);
  float x[kRows][kChannels];
  for (int end = -1; end < v.steps;) {
    end = next_contrast(v, end + 1);
    double sums[kMostChannels] = {};
    for (int t = warp; t < tiles; t += kLargeWarps) {
      const Tile tile = tile_of<false>(t, p.size);
      colour_tile(p, v, image, tile, end, x);
      if (end < v.steps) {
        add_tile(tile, x, sums);
      } else if (v.blurred) {
        keep_tile(p, tile, x, slot.pixels);
      } else {
        write_tile<false>(p, v, tile, x, stage, view);
      }
    }
    if (end < v.steps) set_shift<kLargeWarps>(p, sums, shared, &shared->recipe.step[end]);
  }
  if (!v.blurred) return;
  __syncthreads();
  for (int t = warp; t < tiles; t += kLargeWarps) {
    const Tile tile = tile_of<false>(t, p.size);
    blur_tile<true>(p, tile, slot.gaussian, slot.pixels, x);
    keep_tile(p, tile, x, slot.blurred);
  }
  __syncthreads();
  for (int t = warp; t < tiles; t += kLargeWarps) {
    const Tile tile = tile_of<false>(t, p.size);
    blur_tile<false>(p, tile, slot.gaussian, slot.blurred, x);
    write_tile<false>(p, v, tile, x, stage, view);
  }
}

template <typename Output, int kChannels>
__device__ void write_nan(const Problem& p, Output* view) {
  const uint32_t count = static_cast<uint32_t>(p.size) * p.size * p.channels;
  for (uint32_t at = threadIdx.x; at < count; at += blockDim.x) round_into(view + at, NAN);
}

template <typename Output, int kChannels, bool kHeld>
__global__ void __launch_bounds__(kWarp*(kHeld ? kHeldWarps : kLargeWarps), kHeld ? 8 : 2)
    make_views_kernel(Problem p) {
  Shared* shared = reinterpret_cast<Shared*>(shared_memory());
  const Recipe& v = shared->recipe;
  char* behind = shared_memory() + kSharedHead;
  Output* stage = reinterpret_cast<Output*>(behind + threadIdx.x / kWarp * stage_bytes<Output>(p.channels));
  behind += blockDim.x / kWarp * stage_bytes<Output>(p.channels);
  const Slot slot =
      cut_slot(p, kHeld || p.slots == nullptr ? behind : p.slots + blockIdx.x * p.slot_bytes, nullptr);
  const int64_t rows = 2 * static_cast<int64_t>(p.count);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    prepare(p, row, slot.gaussian, &shared->recipe);
    __syncthreads();
    const int64_t image = row < p.count ? row : row - p.count;
    Output* view = static_cast<Output*>(p.views) + static_cast<int64_t>(row) * p.size * p.size * p.channels;
    if (v.faulty) {
      write_nan<Output, kChannels>(p, view);
    } else if constexpr (kHeld) {
      make_held<Output, kChannels>(p, v, slot, image, shared, stage, view);
    } else {
      make_large<Output, kChannels>(p, v, slot, image, shared, stage, view);
    }
    if (!kHeld) __syncthreads();  // the next view overwrites this one's recipe
  }
}

// ---- Launcher

Divisor divisor_of(int64_t number) {
  uint32_t bits = 1;
  while ((int64_t{1} << bits) < number) ++bits;
  return {static_cast<uint32_t>(divide_up(int64_t{1} << (31 + bits), number)), 31 + bits};
}

int warps_of(const Problem& p) { return p.size <= kHeldSize ? kHeldWarps : kLargeWarps; }

// Shared memory in front of a slot.
int64_t head_bytes(const Problem& p) {
  const int64_t stage =
      p.type == DataType::kFloat32 ? stage_bytes<float>(p.channels) : stage_bytes<Float16Bits>(p.channels);
  return kSharedHead + warps_of(p) * stage;
}

Problem problem_of(const MakeViewsShape& shape) {
  Problem p{};
  p.count = static_cast<int>(shape.count);
  p.height = static_cast<int>(shape.height);
  p.width = static_cast<int>(shape.width);
  p.channels = static_cast<int>(shape.channels);
  p.size = static_cast<int>(shape.size);
  p.pixels = shape.pixels;
  p.type = shape.type;
  p.blur_radius = (p.size / 10 + 1 - p.size / 10 % 2) / 2;
  p.twice_size = divisor_of(2 * shape.size);
  cut_slot(p, nullptr, &p.slot_bytes);
  return p;
}

bool fits_shared(const Problem& p) { return head_bytes(p) + p.slot_bytes <= kSharedBytes; }

int64_t blocks_of(const Problem& p) {
  const int64_t rows = 2 * static_cast<int64_t>(p.count);
  return fits_shared(p) || rows < kSlots ? rows : kSlots;
}

template <typename Output>
void launch(Stream& on, const Problem& p) {
  const bool held = p.size <= kHeldSize;
  const auto kernel = p.channels == 3
                          ? held ? make_views_kernel<Output, 3, true> : make_views_kernel<Output, 3, false>
                      : held ? make_views_kernel<Output, kMostChannels, true>
                             : make_views_kernel<Output, kMostChannels, false>;
  const dim3 grid(static_cast<unsigned>(blocks_of(p)));
  const int64_t shared = head_bytes(p) + (p.slots == nullptr ? p.slot_bytes : 0);
  on.launch(kernel, grid, warps_of(p) * kWarp, shared, p);
}

const char* run(void* stream, const Problem& p) {
  Stream on(stream);
  if (p.type == DataType::kBfloat16) launch<Bfloat16Bits>(on, p);
  if (p.type == DataType::kFloat16) launch<Float16Bits>(on, p);
  if (p.type == DataType::kFloat32) launch<float>(on, p);
  return on.error();
}

const char* refusal(const MakeViewsShape& s, int pixels, int type) {
  if (pixels < 0 || pixels > 2) return "pixels is none of 0 uint8, 1 uint16, 2 float32.";
  if (type != 0 && type != 2 && type != 3) return "type is none of 0 float32, 2 bfloat16, 3 float16.";
  const bool sides = s.height >= 1 && s.width >= 1 && s.size >= 1 && s.height <= kLargest &&
                     s.width <= kLargest && s.size <= kLargest;
  if (!sides) return "images and views need sides of 1 to 32767 pixels.";
  if (s.channels < 1 || s.channels > kMostChannels) return "images need 1 to 4 channels.";
  if (s.count < 0 || s.count > INT32_MAX / 2) return "there must be fewer than 2^30 images.";
  return nullptr;
}

MakeViewsShape shape_of(int64_t count, int64_t height, int64_t width, int64_t channels, int64_t size,
                        int pixels, int type) {
  return {count, height, width, channels, size, static_cast<PixelType>(pixels), static_cast<DataType>(type)};
}

}  // namespace
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;

int64_t lowlevel_simclr_make_views_cuda_workspace_bytes(int64_t count, int64_t height, int64_t width,
                                                        int64_t channels, int64_t size, int pixels,
                                                        int type) {
  const MakeViewsShape shape = shape_of(count, height, width, channels, size, pixels, type);
  if (refusal(shape, pixels, type) != nullptr) return -1;
  const Problem p = problem_of(shape);
  return fits_shared(p) ? 0 : blocks_of(p) * p.slot_bytes;
}

const char* lowlevel_simclr_make_views_cuda(void* stream, int64_t count, int64_t height, int64_t width,
                                            int64_t channels, int64_t size, int pixels, int type,
                                            const void* images, const void* const* params, const float* mean,
                                            const float* inverse_std, void* workspace, void* views) {
  const MakeViewsShape shape = shape_of(count, height, width, channels, size, pixels, type);
  if (const char* why = refusal(shape, pixels, type)) return why;
  if (count == 0) return nullptr;
  Problem p = problem_of(shape);
  bool missing =
      images == nullptr || params == nullptr || mean == nullptr || inverse_std == nullptr || views == nullptr;
  for (int i = 0; !missing && i < kParams; ++i) missing = params[i] == nullptr;
  if (missing || (workspace == nullptr && !fits_shared(p))) {
    return "an array of make_views is null: every one must lie on the device.";
  }
  std::memcpy(&p.params, params, sizeof p.params);
  p.images = images;
  p.mean = mean;
  p.inverse_std = inverse_std;
  p.slots = fits_shared(p) ? nullptr : static_cast<char*>(workspace);
  p.views = views;
  return run(stream, p);
}
