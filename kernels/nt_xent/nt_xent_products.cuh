// NT-Xent on CUDA: the packed rows x of each type, and the two products that a warp computes from them.
// - bfloat16 and float16: a packed row is one row of float16. A row of bfloat16 fits into float16 after it is scaled to
//   a length of about 2^14. Only elements below 2^-28 of the row's length are rounded, by less than 2^-39 of the
//   length.
// - float32: a packed row is two rows of float16, a high piece and a low piece, whose sum is the number. The product of
//   two low pieces is so small that it is left out.
// - float64: a packed row is the row itself, and the products are plain fused multiply-adds.
//
// All types except float64 use the instruction mma.m16n8k16, whose products are exact and whose sums are float32. The
// weights W are split into two float16 numbers as well, because a single float16 would have an error of 2^-11.
//
// The hardware truncates its float32 sums. So a chain of products ends after one panel or one tile, and its result is
// added with rounding, small products first. Both passes add the panels of a dot in the same order, so a dot has the
// same bits in both. Let lse_i be log sum exp s_ik. If one column j has all the weight of row i, its weight
// exp(s_ij - lse_i) is therefore exactly 1.
#pragma once

#include <cmath>

#include "../cuda/tensor_core.cuh"

namespace lowlevel_simclr {
namespace nt_xent_cuda {

constexpr int kTile = 64;              // columns of a tile
constexpr int kFragments = kTile / 8;  // fragments of 8 columns in a tile

// Rows of float, bfloat16 or float16. A float is stored as two float16 numbers, so that x = high + low with an error
// within 2^-24.
template <typename Z>
struct HalfRows {
  using Element = Z;           // the type of z
  using Packed = Float16Bits;  // the type of x
  using Sum = float;
  static constexpr int kWarps = 8, kBuffers = 2;
  static constexpr int kPieces = sizeof(Z) == sizeof(float) ? 2 : 1;
  static constexpr int kPanel = 128;
  static constexpr int kStride =
      kPanel + 8;  // the extra 16 bytes spread the rows over the banks of shared memory
  // The smallest float16 is not very small. So rows are scaled to a length of 2^14, and weights are multiplied by 2^8.
  static constexpr int kRowExponent = 14, kWeightExponent = 8;
  // The indices in shared memory at which the low pieces begin.
  static constexpr int kLowRows = 16 * kWarps * kStride, kLowColumns = kTile * kStride;

  // Writes element k of a packed row. The pieces of the row are `stride` apart.
  static __device__ __forceinline__ void store(Packed* row, int64_t k, int64_t stride, float x) {
    for (int piece = 0; piece < kPieces; ++piece) {
      narrow(row + piece * stride + k, x);
      x -= widen(row[piece * stride + k]);
    }
  }

  // Adds to c the products of 16 rows with 64 columns, over the first `depth` entries of the panel, small products
  // first.
  static __device__ __forceinline__ void dots(const Packed* rows, const Packed* columns, int depth,
                                              float (&c)[kFragments][4]) {
    if (kPieces == 2) dots_over<true>(rows, columns, depth, c);
    dots_over<false>(rows, columns, depth, c);
  }

  template <bool kCross>
  static __device__ __forceinline__ void dots_over(const Packed* rows, const Packed* columns, int depth,
                                                   float (&c)[kFragments][4]) {
    const int lane = threadIdx.x % kWarp;
    const Packed* row = rows + lane % 16 * kStride + lane / 16 * 8;
    const Packed* column = columns + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
    if (depth < kPanel) {
      for (int k = 0; k < depth; k += 16) dots_at<kCross>(row + k, column + k, c);
      return;
    }
#pragma unroll
    for (int k = 0; k < kPanel; k += 16) dots_at<kCross>(row + k, column + k, c);
  }

  // Adds the products high * high or, if kCross is set, low * high + high * low.
  template <bool kCross>
  static __device__ __forceinline__ void dots_at(const Packed* row, const Packed* column,
                                                 float (&c)[kFragments][4]) {
    uint32_t a[4], low[4], b[4];
    load_matrices(a, row);
    if (kCross) load_matrices(low, row + kLowRows);
#pragma unroll
    for (int n = 0; n < kFragments; n += 2) {
      load_matrices(b, column + n * 8 * kStride);
      multiply_pair(c[n], c[n + 1], kCross ? low : a, b);
      if (!kCross) continue;
      load_matrices(b, column + kLowColumns + n * 8 * kStride);
      multiply_pair(c[n], c[n + 1], a, b);
    }
  }

  static __device__ __forceinline__ void multiply_pair(float (&left)[4], float (&right)[4],
                                                       const uint32_t (&a)[4], const uint32_t (&b)[4]) {
    multiply_add(left, a, b[0], b[1]);
    multiply_add(right, a, b[2], b[3]);
  }

  // Computes sums += w (16 x 64) times the first `width` columns of the tile's rows of x. w is still in the C registers
  // of the product that computed it. These registers serve as the A registers here: two neighbouring fragments of 8
  // columns make one fragment of depth 16.
  static __device__ __forceinline__ void apply(float (&w)[kFragments][4], const Packed* columns, int width,
                                               float (&sums)[kPanel / 8][4]) {
    uint32_t high[kFragments / 2][4], low[kFragments / 2][4];
#pragma unroll
    for (int s = 0; s < kFragments / 2; ++s) {
      split_off(w[2 * s], w[2 * s + 1], high[s]);
      split_off(w[2 * s], w[2 * s + 1], low[s]);
    }
    const int lane = threadIdx.x % kWarp;
    const Packed* row = columns + lane % 16 * kStride + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < kPanel / 8; n += 2) {
      if (n * 8 >= width) break;
      float c[2][4] = {};
#pragma unroll
      for (int s = 0; s < kFragments / 2; ++s) {
        uint32_t b[4];
        if (kPieces == 2) {
          load_transposed(b, row + kLowColumns + s * 16 * kStride + n * 8);
          multiply_pair(c[0], c[1], high[s], b);
        }
        load_transposed(b, row + s * 16 * kStride + n * 8);
        multiply_pair(c[0], c[1], low[s], b);
        multiply_pair(c[0], c[1], high[s], b);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[n + i / 4][i % 4] += c[i / 4][i % 4];
    }
  }

  // Moves the leading bits of the numbers in two fragments into one float16 fragment of depth 16. The remaining bits of
  // each number stay in the two fragments.
  static __device__ __forceinline__ void split_off(float (&left)[4], float (&right)[4], uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float (&from)[4] = i < 2 ? left : right;
      const int at = i % 2 * 2;
      a[i] = pack_float16(from[at], from[at + 1]);
      from[at] -= low_float16(a[i]);
      from[at + 1] -= high_float16(a[i]);
    }
  }
};

struct DoubleRows {
  using Element = double;
  using Packed = double;
  using Sum = double;
  static constexpr int kWarps = 4, kBuffers = 1, kPieces = 1;
  static constexpr int kPanel = 32, kStride = kPanel + 2;
  static constexpr int kRowExponent = 0, kWeightExponent = 0;

  static __device__ __forceinline__ void store(double* row, int64_t k, int64_t, double x) { row[k] = x; }

  static __device__ __forceinline__ void dots(const double* rows, const double* columns, int depth,
                                              double (&c)[kFragments][4]) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    const double *row = rows + g * kStride, *column = columns + 2 * t * kStride;
    for (int k = 0; k < depth; ++k) {
      const double a[2] = {row[k], row[8 * kStride + k]};
#pragma unroll
      for (int n = 0; n < kFragments; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) c[n][i] = fma(a[i / 2], column[(n * 8 + i % 2) * kStride + k], c[n][i]);
      }
    }
  }

  // The weights of a row are spread over four lanes. Each lane gets the weights of the other three lanes from them.
  static __device__ __forceinline__ void apply(double (&w)[kFragments][4], const double* columns, int,
                                               double (&sums)[kPanel / 8][4]) {
    const int lane = threadIdx.x % kWarp, t = lane % 4;
#pragma unroll
    for (int s = 0; s < kFragments; ++s) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int owner = lane - t + j / 2;
        const double weight[2] = {__shfl_sync(kAllLanes, w[s][j % 2], owner),
                                  __shfl_sync(kAllLanes, w[s][2 + j % 2], owner)};
        const double* at = columns + (s * 8 + j) * kStride + 2 * t;
#pragma unroll
        for (int n = 0; n < kPanel / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[n][i] = fma(weight[i / 2], at[n * 8 + i % 2], sums[n][i]);
        }
      }
    }
  }
};

}  // namespace nt_xent_cuda
}  // namespace lowlevel_simclr
