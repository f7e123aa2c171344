// Views on CUDA: the Gaussian blur. It takes two passes over the memory of one view: one down the columns and one
// across the lines.
#pragma once

#include <cmath>

#include "../cuda/reduce.cuh"
#include "make_views_problem.cuh"

namespace lowlevel_simclr {
namespace make_views_cuda {

// Writes the weights of the Gaussian at the distances 0 to `radius`. One warp calls this function. In float, the
// relative error of a weight w is about |log w| rounding errors.
__device__ inline void fill_gaussian(float sigma, int radius, float* weight) {
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

__device__ __forceinline__ int mirrored(int place, int size) {
  if (place < 0) place = -place;
  return place < size ? place : 2 * (size - 1) - place;
}

// Blurs a tile (the part of a view that one warp makes) in one direction, down or across. `from` is the view, (S, S,
// channels).
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

}  // namespace make_views_cuda
}  // namespace lowlevel_simclr
