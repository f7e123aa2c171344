// Views on CUDA: the crop. It computes a tile (the part of a view that one warp makes) from the view's box in its
// image. The weights of the crop are integers divided by their sum. For view pixel i, box pixel j has the integer
// weight max(0, 2M - |(2j+1) S - (2i+1) length|). Here S is the side of the view, length is that of the box, and M is
// max(length, S).
#pragma once

#include "make_views_problem.cuh"

namespace lowlevel_simclr {
namespace make_views_cuda {

// The box pixels with a weight above 0, which are those from `first` to `end` - 1.
struct Span {
  int first, end;
};

__device__ __forceinline__ Span span_of(int centre, int most, int length, int size,
                                        const Divisor& twice_size) {
  const int low = centre - 2 * most - size, high = centre + 2 * most - size - 1;
  const int end = quotient(high, twice_size) + 1;
  return {low < 0 ? 0 : quotient(low, twice_size) + 1, end < length ? end : length};
}

// Computes column k of a view that is at least as wide as its box. The column depends on two neighbouring columns of
// the box. Their integer weights sum to 2 S. At the border of the box, both are the same column.
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

// If the pixels of the images are integers, the result is never NaN, and can exceed 1 only by rounding. So this
// function clips it in the way that costs nothing, which corrects only this rounding.
template <typename Pixel>
__device__ __forceinline__ float repaired(float x) {
  return sizeof(Pixel) < sizeof(float) ? saturated(x) : x;
}

// Makes a tile of a view that is at least as large as its box. From one line of the view to the next, the position in
// the box moves by at most one line. If the position is before the first line of the box or after the last, that first
// or last line is used.
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

// Makes a tile of any view. The function resizes each line of the box in the direction across. Then it adds the result
// to every line of the view for which the line of the box has a weight.
template <typename Pixel, int kChannels>
__device__ __forceinline__ void crop_reduced(const Problem& p, const Recipe& v, const Pixel* box, int i,
                                             int k, float (&x)[kRows][kChannels]) {
  const int channels = kChannels == 3 ? 3 : p.channels, twice = 2 * p.size, pitch = p.width * channels;
  const int wide = v.width > p.size ? v.width : p.size, high = v.height > p.size ? v.height : p.size;
  const int last = i + kRows < p.size ? i + kRows - 1 : p.size - 1;
  const Span across = span_of((2 * k + 1) * v.width, wide, v.width, p.size, p.twice_size);
  const int begin = span_of((2 * i + 1) * v.height, high, v.height, p.size, p.twice_size).first;
  const int end = span_of((2 * last + 1) * v.height, high, v.height, p.size, p.twice_size).end;
  // Distances in the direction across are at most 2M < 2^16, so they are exact in float.
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
  // Lane r adds up the weights of all box lines for line r of the tile.
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

// Only this function depends on the type of the images. It chooses the code for the type when the kernel runs. So there
// is one kernel for each type of the views, and it takes images of any type.
template <int kChannels>
__device__ __forceinline__ void crop(const Problem& p, const Recipe& v, int64_t image, const Tile& tile,
                                     float (&x)[kRows][kChannels]) {
  if (p.pixels == PixelType::kUint8) return crop_typed<uint8_t>(p, v, image, tile, x);
  if (p.pixels == PixelType::kUint16) return crop_typed<uint16_t>(p, v, image, tile, x);
  crop_typed<float>(p, v, image, tile, x);
}

}  // namespace make_views_cuda
}  // namespace lowlevel_simclr
