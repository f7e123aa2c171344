// Views on CUDA: writes a tile (the part of a view that one warp makes) from registers to its place in the view.
#pragma once

#include "../cuda/tensor_core.cuh"
#include "make_views_problem.cuh"

namespace lowlevel_simclr {
namespace make_views_cuda {

__device__ __forceinline__ void round_into(float* to, float x) { *to = x; }
__device__ __forceinline__ void round_into(Float16Bits* to, float x) { narrow(to, x); }
__device__ __forceinline__ void round_into(Bfloat16Bits* to, float x) {
#ifdef __CUDACC__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
#else
  narrow(to, x);
#endif
}

// Copies an array with one warp. If kWide is set, both arrays must be aligned to 16 bytes.
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

// Copies a tile from the warp's part of shared memory, where its lines lie one after another, into the view. A tile of
// a held view (make_views_problem.cuh) consists of whole lines of the view, so it is copied in one piece.
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

// Returns the size of a warp's part of shared memory, in which it lays out a tile.
template <typename Output>
__host__ __device__ constexpr int64_t stage_bytes(int channels) {
  return kRows * kWarp * channels * static_cast<int64_t>(sizeof(Output));
}

// Scales a tile, rounds it into the warp's part of shared memory, and copies it from there to the view. If the
// alignment of the view allows it, each copy moves 16 bytes.
template <bool kHeld, typename Output, int kChannels>
__device__ __forceinline__ void write_tile(const Problem& p, const Recipe& v, const Tile& tile,
                                           const float (&x)[kRows][kChannels], Output* stage, Output* view) {
  const int channels = kChannels == 3 ? 3 : p.channels, lane = threadIdx.x % kWarp, left = tile.column - lane;
  const int length = (p.size - left < kWarp ? p.size - left : kWarp) * channels, pitch = p.size * channels;
  __syncwarp();  // other lanes may still be reading the previous tile
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

}  // namespace make_views_cuda
}  // namespace lowlevel_simclr
