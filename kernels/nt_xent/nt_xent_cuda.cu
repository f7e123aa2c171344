// NT-Xent on CUDA devices from sm_80 on. Contract: nt_xent_cuda.h; formula: nt_xent.h.
//
// Mapping. `pack` writes x_i = z_i 2^e with |x_i| near a power of two, exactly, and scale_i = 1/|x_i|, so that raw rows
// are dotted and <u_i, u_j> = <x_i, x_j> scale_i scale_j in float32. A block of four warps owns 64 rows, a warp 16 of
// them, and passes over its share of the columns in tiles of 64, d in panels of kPanel:
//     forward:  tile of dots -> sum of exponentials, largest dot, the positive's dot
//     backward: tile of dots -> W_ij -> sums_i += W_ij u_j, from the registers that hold W to those that hold the sums
// The columns are cut into as many shares as give 512 blocks; each share writes its partial results to a place of its
// own, and a last kernel adds them in the order of the columns. The tiles never leave the registers.
//
// Products. bfloat16 and float16: mma.m16n8k16 on the raw rows, exact products, float32 sums; W (times scale_j) is
// split into three bfloat16 or two float16 numbers, for W in half precision would be wrong by 2^-9. float32: three tf32
// products of numbers split in two (22 bits), without lo lo. float64: plain fused multiply-adds. The hardware truncates
// its float32 sums, so a chain ends after one panel or one tile and is added up with rounding.
//
// Operations, with F = 2 (2N)^2 d: forward F, backward 2F (and F more for every kPanel of d beyond the first), times 3
// and 2 where split. Bytes: x is read once for each 64 rows, from the L2 cache as long as it lies there.
//
// The full square, not its upper triangle. Backward, a tile used twice would add to the rows of others: float atomics
// or 2N/64 copies of dz; it would save F/2 of 2F. Forward it would save half: at N = 4096, d = 128 some 17 of 34 GFLOP
// and 34 of 67 million exponentials, about 20 us each way on an H100 by its data sheet, for a second reduction and
// (2N)^2/64 partial sums. And a row that sees all columns from its own side gives equal rows bit-equal dots under the
// split products too, which top1 promises.
//
// Not tried yet, for want of a device: asynchronous copies, two row tiles a warp, wgmma.
#include <cfloat>
#include <cmath>
#include <cstring>

#include "../parallel_for.h"
#include "../reduce.cuh"
#include "../tensor_core.cuh"
#include "nt_xent.h"
#include "nt_xent_cuda.h"

// Tests set it low, so that a block of a small problem passes over several tiles, as those of large ones do.
#ifndef LOWLEVEL_SIMCLR_BLOCKS_WANTED
#define LOWLEVEL_SIMCLR_BLOCKS_WANTED 512
#endif

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kTile = 64;                                     // rows of a block, columns of a tile
constexpr int kFragments = kTile / 8;                         // 8-column fragments of a tile
constexpr int kBlocksWanted = LOWLEVEL_SIMCLR_BLOCKS_WANTED;  // about four for each processor of a large GPU
constexpr int kMostShares = 64;                               //
constexpr int kPadding = 16;            // d is rounded up to it: the depth of one 16-bit product
constexpr int kReducingThreads = 1024;  //
constexpr double kFixedShiftTemperature = 2.0 / 64.0;  // as on the CPU
constexpr double kLog2E = 1.4426950408889634;
constexpr float kNoDot = -4.0f;  // below every dot

static_assert(kTile == 16 * kWarps, "a warp owns the 16 rows of one product");

// ---- What differs between types

template <typename Half>
struct HalfRows {
  using Element = Half;
  using Sum = float;
  static constexpr int kPanel = 128,
                       kStride = kPanel + 8;  // the 16 bytes behind a row spread rows over the banks
  static constexpr bool kNarrowRange = sizeof(Half) == 2 && !std::is_same<Half, Bfloat16Bits>::value;
  // float16 has few exponents: rows of length 2^14 and weights times 2^8 keep what is small within them.
  static constexpr int kRowExponent = kNarrowRange ? 14 : 0, kWeightExponent = kNarrowRange ? 8 : 0;
  static constexpr int kPieces = kNarrowRange ? 2 : 3;

  // c += 16 rows times 64 columns, over `depth` of the panel.
  static __device__ __forceinline__ void dots(const Element* rows, const Element* columns, int depth,
                                              float (&c)[kFragments][4]) {
    const int lane = threadIdx.x % kWarp;
    const Element* row = rows + lane % 16 * kStride + lane / 16 * 8;
    const Element* column = columns + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
    for (int k = 0; k < depth; k += 16) {
      uint32_t a[4], b[4];
      load_matrices(a, row + k);
#pragma unroll
      for (int n = 0; n < kFragments; n += 2) {
        load_matrices(b, column + n * 8 * kStride + k);
        multiply_add(Half(), c[n], a, b[0], b[1]);
        multiply_add(Half(), c[n + 1], a, b[2], b[3]);
      }
    }
  }

  // sums += w (16 x 64) times the first `width` columns of the tile's rows of x. A product's C registers are the next
  // one's A registers: two neighbouring fragments of 8 columns are one of depth 16.
  static __device__ __forceinline__ void apply(float (&w)[kFragments][4], const Element* columns, int width,
                                               float (&sums)[kPanel / 8][4]) {
    uint32_t pieces[kFragments / 2][kPieces][4];
#pragma unroll
    for (int s = 0; s < kFragments / 2; ++s) {
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) split_off(w[2 * s], w[2 * s + 1], pieces[s][piece]);
    }
    const int lane = threadIdx.x % kWarp;
    const Element* row = columns + lane % 16 * kStride + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < kPanel / 8; n += 2) {
      if (n * 8 >= width) break;
      float c[2][4] = {};
#pragma unroll
      for (int s = 0; s < kFragments / 2; ++s) {
        uint32_t b[4];
        load_transposed(b, row + s * 16 * kStride + n * 8);
#pragma unroll
        for (int piece = kPieces - 1; piece >= 0; --piece) {
          multiply_add(Half(), c[0], pieces[s][piece], b[0], b[1]);
          multiply_add(Half(), c[1], pieces[s][piece], b[2], b[3]);
        }
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[n + i / 4][i % 4] += c[i / 4][i % 4];
    }
  }

  // Moves the leading bits of two fragments into one of depth 16, and leaves what remains.
  static __device__ __forceinline__ void split_off(float (&left)[4], float (&right)[4], uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float (&from)[4] = i < 2 ? left : right;
      const int at = i % 2 * 2;
      const float low = round_to<Half>(from[at]), high = round_to<Half>(from[at + 1]);
      a[i] = pack<Half>(low, high);
      from[at] -= low;
      from[at + 1] -= high;
    }
  }
};

struct SingleRows {
  using Element = float;
  using Sum = float;
  static constexpr int kPanel = 128, kStride = kPanel + 4;
  static constexpr int kRowExponent = 0, kWeightExponent = 0;

  static __device__ __forceinline__ void split(const float (&x)[4], float (&high)[4], float (&low)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      high[i] = round_to_tf32(x[i]);
      low[i] = round_to_tf32(x[i] - high[i]);
    }
  }

  // The small products first.
  static __device__ __forceinline__ void multiply_split(float (&c)[4], const float (&high)[4],
                                                        const float (&low)[4], float b0, float b1) {
    const float high0 = round_to_tf32(b0), high1 = round_to_tf32(b1);
    multiply_add_tf32(c, low, high0, high1);
    multiply_add_tf32(c, high, round_to_tf32(b0 - high0), round_to_tf32(b1 - high1));
    multiply_add_tf32(c, high, high0, high1);
  }

  static __device__ __forceinline__ void dots(const float* rows, const float* columns, int depth,
                                              float (&c)[kFragments][4]) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    const float *row = rows + g * kStride + t, *column = columns + g * kStride + t;
    for (int k = 0; k < depth; k += 8) {
      const float a[4] = {row[k], row[8 * kStride + k], row[k + 4], row[8 * kStride + k + 4]};
      float high[4], low[4];
      split(a, high, low);
#pragma unroll
      for (int n = 0; n < kFragments; ++n) {
        multiply_split(c[n], high, low, column[n * 8 * kStride + k], column[n * 8 * kStride + k + 4]);
      }
    }
  }

  // The order of a depth is free: slot t is column 2t and slot t + 4 column 2t + 1, so C registers are A registers.
  static __device__ __forceinline__ void apply(float (&w)[kFragments][4], const float* columns, int width,
                                               float (&sums)[kPanel / 8][4]) {
    float low[kFragments][4];
#pragma unroll
    for (int s = 0; s < kFragments; ++s) {
      const float a[4] = {w[s][0], w[s][2], w[s][1], w[s][3]};
      split(a, w[s], low[s]);
    }
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    const float* row = columns + 2 * t * kStride + g;
#pragma unroll
    for (int n = 0; n < kPanel / 8; ++n) {
      if (n * 8 >= width) break;
      float c[4] = {};
#pragma unroll
      for (int s = 0; s < kFragments; ++s) {
        const float* at = row + s * 8 * kStride + n * 8;
        multiply_split(c, w[s], low[s], at[0], at[kStride]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] += c[i];
    }
  }
};

struct DoubleRows {
  using Element = double;
  using Sum = double;
  static constexpr int kPanel = 32, kStride = kPanel + 2;
  static constexpr int kRowExponent = 0, kWeightExponent = 0;

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

  // A row's weights lie in four lanes, which show them to one another.
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

// ---- Problem

template <typename Kind>
struct Column {
  typename Kind::Sum scale, weight, cotangent, shift;  // 1/|x|, c/r, c, m
};

template <typename Kind>
struct Problem {
  int64_t rows, pairs, own_rows, dim, stride;
  int shares, panels;
  const double* temperature;
  const int64_t* first_pair;
  typename Kind::Element* x;  // (rows, stride)
  Column<Kind>* columns;      // (rows,)
};

// What a kernel reads of the scalars that lie on the device.
struct Scalars {
  double temperature;  // NaN where the call is wrong
  int64_t first_pair;
};

template <typename Kind>
__device__ __forceinline__ Scalars read_scalars(const Problem<Kind>& p) {
  Scalars s{*p.temperature, p.first_pair == nullptr ? 0 : *p.first_pair};
  const bool inside = s.first_pair >= 0 && s.first_pair <= p.pairs - p.own_rows / 2;
  if (!inside) s.first_pair = 0;
  if (!inside || !(s.temperature > 0 && s.temperature <= DBL_MAX)) s.temperature = NAN;
  return s;
}

__device__ __forceinline__ bool is_online(double temperature) {
  return !(temperature >= kFixedShiftTemperature);
}

// The row of z that is own row `own`: the own first views, then the own second views.
template <typename Kind>
__host__ __device__ __forceinline__ int64_t row_of(const Problem<Kind>& p, int64_t first_pair, int64_t own) {
  const int64_t own_pairs = p.own_rows / 2;
  return first_pair + (own < own_pairs ? own : own - own_pairs + p.pairs);
}

__host__ __device__ __forceinline__ int64_t positive_of(int64_t row, int64_t pairs) {
  return row < pairs ? row + pairs : row - pairs;
}

// Share s has the tiles [s T / S, (s + 1) T / S) of the columns.
__host__ __device__ __forceinline__ int64_t first_tile(int64_t share, int64_t shares, int64_t rows) {
  return share * divide_up(rows, kTile) / shares;
}

// ---- Packing

template <typename Element>
__device__ __forceinline__ auto flushed(Element x) {
  const auto wide = widen(x);
  const double smallest = sizeof(wide) == sizeof(float) ? FLT_MIN : DBL_MIN;
  return fabs(wide) < smallest ? decltype(wide)(0) : wide;  // subnormal numbers count as 0
}

template <typename Element>
__device__ double sum_of_squares(const Element* row, int64_t dim, double factor) {
  double sum = 0;
  for (int64_t k = threadIdx.x % kWarp; k < dim; k += kWarp) {
    const double x = factor * flushed(row[k]);
    sum = fma(x, x, sum);
  }
  return reduce_warp(sum, Add());
}

// |z|, whatever its size. Squares of a float neither overflow nor vanish in double; those of a double may.
template <typename Element>
__device__ double norm_of(const Element* row, int64_t dim) {
  const double squares = sum_of_squares(row, dim, 1.0);
  if (sizeof(Element) < sizeof(double) || (squares > 0x1p-900 && squares < 0x1p1000)) return sqrt(squares);
  const double factor = squares > 1 ? 0x1p-520 : 0x1p520;
  return sqrt(sum_of_squares(row, dim, factor)) / factor;
}

// One warp a row: x, its scale, and 1/|z|, which is null in the backward pass.
template <typename Kind>
__global__ void pack(Problem<Kind> p, const typename Kind::Element* z, typename Kind::Sum* inverse_norm) {
  using Element = typename Kind::Element;
  using Sum = typename Kind::Sum;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  const Element* from = z + row * p.dim;
  const double norm = norm_of(from, p.dim), inverse = 1 / norm;
  const bool is_float = sizeof(Sum) == sizeof(float);
  const double least = is_float ? FLT_MIN : DBL_MIN, most = is_float ? FLT_MAX : DBL_MAX;
  const bool finite = norm <= DBL_MAX, counts = finite && inverse >= least && inverse <= most;
  const int exponent = counts ? Kind::kRowExponent - ilogb(norm) : 0;
  // Two factors, for 2^exponent alone may be beyond a double.
  const double half = ldexp(1.0, exponent / 2), other_half = ldexp(1.0, exponent - exponent / 2);
  for (int64_t k = threadIdx.x % kWarp; k < p.stride; k += kWarp) {
    const double x = counts && k < p.dim ? flushed(from[k]) * half * other_half : 0.0;
    narrow(p.x + row * p.stride + k, static_cast<Sum>(x));
  }
  if (threadIdx.x % kWarp != 0) return;
  p.columns[row].scale = static_cast<Sum>(counts ? inverse / half / other_half : finite ? 0.0 : NAN);
  if (inverse_norm != nullptr) inverse_norm[row] = static_cast<Sum>(counts || norm != norm ? inverse : 0.0);
}

// ---- Tiles

// Shared memory of a block.
template <typename Kind>
struct Shared {
  typename Kind::Element rows[kTile * Kind::kStride], columns[kTile * Kind::kStride];
  Column<Kind> of_columns[kTile];
  int64_t row_numbers[kTile];
};

static_assert(sizeof(Shared<HalfRows<Bfloat16Bits>>) % 16 == 0 && sizeof(Shared<DoubleRows>) % 16 == 0);
static_assert(sizeof(Shared<SingleRows>) <= 80 * 1024, "two blocks fit the 164 KB of sm_80");

// Columns [panel kPanel, + kPanel) of 64 rows of x, 16 bytes at a time; 0 where there is no row or column.
template <typename Kind, typename RowOf>
__device__ __forceinline__ void load_panel(const Problem<Kind>& p, int panel, RowOf row_of_index,
                                           typename Kind::Element* to) {
  constexpr int kPerLoad = 16 / sizeof(typename Kind::Element), kLoads = Kind::kPanel / kPerLoad;
  static_assert(kPadding % kPerLoad == 0 && Kind::kStride % kPerLoad == 0);
  for (int i = threadIdx.x; i < kTile * kLoads; i += kThreads) {
    const int64_t row = row_of_index(i / kLoads),
                  column = static_cast<int64_t>(panel) * Kind::kPanel + i % kLoads * kPerLoad;
    uint4 loaded{0, 0, 0, 0};
    if (row >= 0 && row < p.rows && column < p.stride) {
      loaded = *reinterpret_cast<const uint4*>(p.x + row * p.stride + column);
    }
    *reinterpret_cast<uint4*>(to + i / kLoads * Kind::kStride + i % kLoads * kPerLoad) = loaded;
  }
}

template <typename Kind>
__device__ __forceinline__ int width_of(const Problem<Kind>& p, int panel) {
  const int64_t left = p.stride - static_cast<int64_t>(panel) * Kind::kPanel;
  return static_cast<int>(left < Kind::kPanel ? left : Kind::kPanel);
}

// One thread's view of its block's work: two rows, and of a tile two columns in each of eight fragments.
template <typename Kind>
struct Worker {
  using Sum = typename Kind::Sum;
  const Problem<Kind>& p;
  Shared<Kind>& shared;
  int warp, g, t;
  int64_t row[2], partner[2];  // -1 behind the last own row
  Sum scale[2];

  __device__ Worker(const Problem<Kind>& p, const Scalars& s)
      : p(p), shared(*reinterpret_cast<Shared<Kind>*>(shared_memory())) {
    warp = threadIdx.x / kWarp;
    g = threadIdx.x % kWarp / 4;
    t = threadIdx.x % 4;
    for (int i = threadIdx.x; i < kTile; i += kThreads) {
      const int64_t own = own_row(i);
      shared.row_numbers[i] = own < p.own_rows ? row_of(p, s.first_pair, own) : -1;
    }
    __syncthreads();
    for (int i = 0; i < 2; ++i) {
      row[i] = shared.row_numbers[warp * 16 + g + 8 * i];
      partner[i] = row[i] < 0 ? -1 : positive_of(row[i], p.pairs);
      scale[i] = row[i] < 0 ? Sum(0) : p.columns[row[i]].scale;
    }
  }

  __device__ int64_t own_row(int index) const { return static_cast<int64_t>(blockIdx.x) * kTile + index; }

  // Raw dots of the block's rows with tile `tile`, its panels in turn, `last` the last one: it stays in shared memory.
  __device__ __forceinline__ void dots(int64_t tile, bool first, int last, Sum (&c)[kFragments][4]) {
    for (int n = 0; n < kFragments; ++n)
      for (int i = 0; i < 4; ++i) c[n][i] = 0;
    const int64_t begin = tile * kTile;
    for (int turn = 1; turn <= p.panels; ++turn) {
      const int panel = (last + turn) % p.panels;
      __syncthreads();  // nobody reads what is overwritten
      if (first || p.panels > 1)
        load_panel(p, panel, [&](int i) { return shared.row_numbers[i]; }, shared.rows);
      load_panel(p, panel, [&](int i) { return begin + i; }, shared.columns);
      for (int i = threadIdx.x; turn == 1 && i < kTile; i += kThreads) {
        shared.of_columns[i] = begin + i < p.rows ? p.columns[begin + i] : Column<Kind>{};
      }
      __syncthreads();
      Sum of_panel[kFragments][4] = {};
      Kind::dots(shared.rows + warp * 16 * Kind::kStride, shared.columns, width_of(p, panel), of_panel);
#pragma unroll
      for (int n = 0; n < kFragments; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) c[n][i] += of_panel[n][i];
    }
  }

  __device__ __forceinline__ int column_in_tile(int n, int i) const { return n * 8 + 2 * t + i % 2; }
};

template <typename Sum>
__device__ __forceinline__ Sum exp2_of(Sum x) {
  return exp2(x);
}

__device__ __forceinline__ float exp2_of(float x) { return exp2f(x); }

// ---- Forward

// By share and own row: over the columns other than the row itself and its positive.
template <typename Sum>
struct Partial {
  Sum *sum, *most, *positive;  // (shares, own_rows)
};

// The running state of one thread's row.
template <typename Sum>
struct State {
  Sum sum = 0, most = Sum(kNoDot), positive = Sum(kNoDot);
};

// Adds the dots of `kCount` columns. A dot of kNoDot does not count.
template <typename Sum, int kCount>
__device__ __forceinline__ void add_dots(State<Sum>& state, const Sum (&dots)[kCount], bool online, Sum k) {
  Sum most = state.most;
#pragma unroll
  for (int i = 0; i < kCount; ++i) most = dots[i] > most ? dots[i] : most;
  const Sum shift = online ? most : Sum(1);
  Sum sum = online && state.sum != 0 ? state.sum * exp2_of((state.most - most) * k) : state.sum;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += dots[i] == Sum(kNoDot) ? Sum(0) : exp2_of((dots[i] - shift) * k);
  state.sum = sum;
  state.most = most;
}

template <typename Sum>
__device__ __forceinline__ State<Sum> merged(const State<Sum>& a, const State<Sum>& b, bool online, Sum k) {
  State<Sum> both;
  both.most = a.most > b.most ? a.most : b.most;
  const Sum of_a = online && a.sum != 0 ? a.sum * exp2_of((a.most - both.most) * k) : a.sum;
  const Sum of_b = online && b.sum != 0 ? b.sum * exp2_of((b.most - both.most) * k) : b.sum;
  both.sum = of_a + of_b;
  both.positive = a.positive == Sum(kNoDot) ? b.positive : a.positive;
  return both;
}

template <typename Kind, typename Sum>
__device__ __forceinline__ void add_tile(const Worker<Kind>& w, int64_t begin, const Sum (&c)[kFragments][4],
                                         State<Sum> (&state)[2], bool online, Sum k) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    Sum dots[2 * kFragments];
#pragma unroll
    for (int n = 0; n < kFragments; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = w.column_in_tile(n, i);
        const int64_t column = begin + at;
        const Sum dot = c[n][2 * r + i] * (w.scale[r] * w.shared.of_columns[at].scale);
        const bool counts = column < w.p.rows && column != w.row[r] && column != w.partner[r];
        dots[2 * n + i] = counts ? dot : Sum(kNoDot);
        if (column == w.partner[r]) state[r].positive = dot;
      }
    }
    add_dots(state[r], dots, online, k);
  }
}

template <typename Kind>
__global__ void __launch_bounds__(kThreads, sizeof(typename Kind::Sum) == 4 ? 3 : 1)
    forward_tiles(Problem<Kind> p, Partial<typename Kind::Sum> partial) {
  using Sum = typename Kind::Sum;
  const Scalars s = read_scalars(p);
  const bool online = is_online(s.temperature);
  const Sum k = static_cast<Sum>(kLog2E / s.temperature);
  Worker<Kind> w(p, s);
  State<Sum> state[2];
  const int64_t begin = first_tile(blockIdx.y, p.shares, p.rows),
                end = first_tile(blockIdx.y + 1, p.shares, p.rows);
  for (int64_t tile = begin; tile < end; ++tile) {
    Sum c[kFragments][4];
    w.dots(tile, tile == begin, p.panels - 1, c);
    add_tile(w, tile * kTile, c, state, online, k);
  }
  for (int r = 0; r < 2; ++r) {
    for (int mask = 2; mask > 0; mask /= 2) {
      State<Sum> other;
      other.sum = __shfl_xor_sync(kAllLanes, state[r].sum, mask);
      other.most = __shfl_xor_sync(kAllLanes, state[r].most, mask);
      other.positive = __shfl_xor_sync(kAllLanes, state[r].positive, mask);
      // Both of the two add the lower lane's to the higher one's: the same bits.
      state[r] = w.t & mask ? merged(other, state[r], online, k) : merged(state[r], other, online, k);
    }
    if (w.row[r] < 0 || w.t != 0) continue;
    const int64_t at = blockIdx.y * p.own_rows + w.own_row(w.warp * 16 + w.g + 8 * r);
    partial.sum[at] = state[r].sum;
    partial.most[at] = state[r].most;
    partial.positive[at] = state[r].positive;
  }
}

template <typename Sum>
struct ForwardOutputs {
  Sum *loss, *normaliser;
  bool* top1;
};

// One thread an own row: the shares in their order, and then the positive.
template <typename Kind>
__global__ void finish_forward(Problem<Kind> p, Partial<typename Kind::Sum> partial,
                               ForwardOutputs<typename Kind::Sum> to) {
  using Sum = typename Kind::Sum;
  const int64_t own = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (own >= p.own_rows) return;
  const Scalars s = read_scalars(p);
  const bool online = is_online(s.temperature);
  const int64_t tile = positive_of(row_of(p, s.first_pair, own), p.pairs) / kTile;
  double most = kNoDot, sum = 0, positive = NAN;
  for (int64_t share = 0; share < p.shares; ++share) {
    const int64_t at = share * p.own_rows + own;
    const double other = partial.most[at], shift = online ? (most > other ? most : other) : 1.0;
    const double kept = online && sum != 0 ? sum * exp((most - shift) / s.temperature) : sum;
    const double added = partial.sum[at];
    sum = kept + (online && added != 0 ? added * exp((other - shift) / s.temperature) : added);
    most = most > other ? most : other;
    const bool here =
        first_tile(share, p.shares, p.rows) <= tile && tile < first_tile(share + 1, p.shares, p.rows);
    if (here) positive = partial.positive[at];
  }
  const double shift = online ? (most > positive ? most : positive) : 1.0;
  const double others = online && sum != 0 ? sum * exp((most - shift) / s.temperature) : sum;
  const double all = others + exp((positive - shift) / s.temperature);
  to.loss[own] = static_cast<Sum>(log(all) + (shift - positive) / s.temperature);
  to.normaliser[2 * own] = static_cast<Sum>(shift);
  to.normaliser[2 * own + 1] = static_cast<Sum>(all);
  to.top1[own] = positive > most && all == all;
}

// ---- Backward

// max |c|, or 1 where that is 0, by one block: with cotangents scaled by it, no loss scale overflows a sum.
template <typename Sum>
__global__ void largest_cotangent(const Sum* cotangent, int64_t rows, Sum* largest) {
  Sum most = 0;
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) {
    const Sum size = fabs(cotangent[i]);
    most = size > most ? size : most;
  }
  most = reduce_block(most, Sum(0), reinterpret_cast<Sum*>(shared_memory()), Largest());
  if (threadIdx.x == 0) *largest = most > 0 ? most : Sum(1);
}

template <typename Kind>
__global__ void fill_columns(Problem<Kind> p, const typename Kind::Sum* cotangent,
                             const typename Kind::Sum* normaliser, const typename Kind::Sum* largest) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= p.rows) return;
  Column<Kind>& column = p.columns[row];
  column.cotangent = cotangent[row] / *largest;
  column.weight = column.cotangent / normaliser[2 * row + 1];
  column.shift = normaliser[2 * row];
}

// c becomes W_ij times scale_j, times a power of two that float16 needs; 0 where nothing counts.
template <typename Kind, typename Sum>
__device__ __forceinline__ void weigh_tile(const Worker<Kind>& w, int64_t begin,
                                           const Column<Kind> (&of_rows)[2], Sum (&c)[kFragments][4],
                                           bool online, Sum k) {
  const Sum factor = Sum(1 << Kind::kRowExponent) * Sum(1 << Kind::kWeightExponent);
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i / 2, at = w.column_in_tile(n, i);
      const int64_t column = begin + at;
      const Column<Kind>& other = w.shared.of_columns[at];
      const Sum dot = c[n][i] * (w.scale[r] * other.scale);
      Sum weight = online ? of_rows[r].weight * exp2_of((dot - of_rows[r].shift) * k) +
                                other.weight * exp2_of((dot - other.shift) * k)
                          : exp2_of((dot - Sum(1)) * k) * (of_rows[r].weight + other.weight);
      if (column == w.partner[r]) weight -= of_rows[r].cotangent + other.cotangent;
      const bool counts = column < w.p.rows && column != w.row[r];
      c[n][i] = counts ? weight * (other.scale * factor) : Sum(0);
    }
  }
}

// Block (rows, share of the columns, panel of d): partial sums of W_ij u_j times 2^(kRowExponent + kWeightExponent).
template <typename Kind>
__global__ void __launch_bounds__(kThreads, sizeof(typename Kind::Sum) == 4 ? 2 : 1)
    backward_tiles(Problem<Kind> p, typename Kind::Sum* partial) {
  using Sum = typename Kind::Sum;
  const Scalars s = read_scalars(p);
  const bool online = is_online(s.temperature);
  const Sum k = static_cast<Sum>(kLog2E / s.temperature);
  Worker<Kind> w(p, s);
  Column<Kind> of_rows[2];
  for (int r = 0; r < 2; ++r) of_rows[r] = w.row[r] < 0 ? Column<Kind>{} : p.columns[w.row[r]];
  const int panel = blockIdx.z, width = width_of(p, panel);
  Sum sums[Kind::kPanel / 8][4] = {};
  const int64_t begin = first_tile(blockIdx.y, p.shares, p.rows),
                end = first_tile(blockIdx.y + 1, p.shares, p.rows);
  for (int64_t tile = begin; tile < end; ++tile) {
    Sum c[kFragments][4];
    w.dots(tile, tile == begin, panel, c);
    weigh_tile(w, tile * kTile, of_rows, c, online, k);
    Kind::apply(c, w.shared.columns, width, sums);
  }
#pragma unroll
  for (int n = 0; n < Kind::kPanel / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = n * 8 + 2 * w.t + i % 2;
      if (w.row[i / 2] < 0 || column >= width) continue;
      const int64_t own = w.own_row(w.warp * 16 + w.g + 8 * (i / 2));
      partial[(blockIdx.y * p.own_rows + own) * p.stride + static_cast<int64_t>(panel) * Kind::kPanel +
              column] = sums[n][i];
    }
  }
}

template <typename Kind>
struct FinishArguments {
  const typename Kind::Element* z;
  const typename Kind::Sum *inverse_norm, *partial, *largest;
  typename Kind::Element* dz;
  double* along;  // (own_rows,)
};

template <typename Kind>
__device__ __forceinline__ typename Kind::Sum sum_of_shares(const Problem<Kind>& p,
                                                            const typename Kind::Sum* partial, int64_t own,
                                                            int64_t k) {
  typename Kind::Sum sum = 0;
  for (int64_t share = 0; share < p.shares; ++share)
    sum += partial[(share * p.own_rows + own) * p.stride + k];
  return sum * (typename Kind::Sum(1) / (1 << (Kind::kRowExponent + Kind::kWeightExponent)));
}

// One warp an own row: dz = (sums - <sums, u> u) factor / |z|.
template <typename Kind>
__global__ void finish_backward(Problem<Kind> p, FinishArguments<Kind> f) {
  using Sum = typename Kind::Sum;
  const int64_t own = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (own >= p.own_rows) return;
  const Scalars s = read_scalars(p);
  const int64_t row = row_of(p, s.first_pair, own);
  const typename Kind::Element* z = f.z + row * p.dim;
  const Sum inverse = f.inverse_norm[row];
  const int lane = threadIdx.x % kWarp;
  Sum along = 0;
  for (int64_t k = lane; k < p.dim; k += kWarp) {
    along += sum_of_shares(p, f.partial, own, k) * (flushed(z[k]) * inverse);
  }
  along = reduce_warp(along, Add());
  const Sum outer = inverse * static_cast<Sum>(*f.largest / s.temperature);
  for (int64_t k = lane; k < p.dim; k += kWarp) {
    const Sum rest = sum_of_shares(p, f.partial, own, k) - (flushed(z[k]) * inverse) * along;
    narrow(f.dz + own * p.dim + k, rest * outer);
  }
  if (lane == 0) f.along[own] = along;
}

// One block: the own rows' shares of the gradient to the temperature, in one order.
template <typename Kind>
__global__ void finish_temperature(Problem<Kind> p, const double* along, const typename Kind::Sum* largest,
                                   double* dtemperature) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < p.own_rows; i += blockDim.x) sum += along[i];
  sum = reduce_block(sum, 0.0, reinterpret_cast<double*>(shared_memory()), Add());
  const double temperature = read_scalars(p).temperature;
  if (threadIdx.x == 0) *dtemperature = -0.5 * sum * *largest / (temperature * temperature);
}

// ---- Launchers

// Sizes and memory of either pass.
template <typename Kind>
struct Plan {
  using Sum = typename Kind::Sum;
  Problem<Kind> problem;
  Partial<Sum> partial;
  Sum *sums, *largest;
  double* along;
  int64_t row_blocks, bytes;

  Plan(const NtXentShape& shape, const double* temperature, const int64_t* first_pair, void* workspace) {
    Problem<Kind>& p = problem;
    p.rows = 2 * shape.pairs;
    p.pairs = shape.pairs;
    p.own_rows = 2 * shape.own_pairs;
    p.dim = shape.dim;
    p.stride = round_up(shape.dim, kPadding);
    p.panels = static_cast<int>(divide_up(p.stride, Kind::kPanel));
    p.temperature = temperature;
    p.first_pair = first_pair;
    row_blocks = divide_up(p.own_rows, kTile);
    const int64_t tiles = divide_up(p.rows, kTile), wanted = divide_up(kBlocksWanted, row_blocks);
    p.shares = static_cast<int>(wanted < tiles ? (wanted < kMostShares ? wanted : kMostShares)
                                               : (tiles < kMostShares ? tiles : kMostShares));
    DeviceArena arena(workspace);
    p.x = arena.take<typename Kind::Element>(p.rows * p.stride);
    p.columns = arena.take<Column<Kind>>(p.rows);
    // The forward and the backward pass use the same memory.
    const int64_t parts = p.shares * p.own_rows;
    sums = arena.take<Sum>(parts * (p.stride < 3 ? 3 : p.stride));
    partial = {sums, sums == nullptr ? nullptr : sums + parts, sums == nullptr ? nullptr : sums + 2 * parts};
    largest = arena.take<Sum>(1);
    along = arena.take<double>(p.own_rows);
    bytes = arena.used();
  }

  dim3 tiles_grid(bool backward) const {
    return dim3(static_cast<unsigned>(row_blocks), problem.shares, backward ? problem.panels : 1);
  }
  dim3 rows_grid(int64_t rows, int rows_a_block) const {
    return dim3(static_cast<unsigned>(divide_up(rows, rows_a_block)));
  }
};

template <typename Kind>
const char* run_forward(void* stream, const NtXentShape& shape, const void* z, const double* temperature,
                        const int64_t* first_pair, void* workspace, void* loss, void* normaliser,
                        void* inverse_norm, bool* top1) {
  using Sum = typename Kind::Sum;
  const Plan<Kind> plan(shape, temperature, first_pair, workspace);
  const Problem<Kind>& p = plan.problem;
  const ForwardOutputs<Sum> to{static_cast<Sum*>(loss), static_cast<Sum*>(normaliser), top1};
  Stream on(stream);
  on.launch(pack<Kind>, plan.rows_grid(p.rows, kWarps), kThreads, 0, p,
            static_cast<const typename Kind::Element*>(z), static_cast<Sum*>(inverse_norm));
  on.launch(forward_tiles<Kind>, plan.tiles_grid(false), kThreads, sizeof(Shared<Kind>), p, plan.partial);
  on.launch(finish_forward<Kind>, plan.rows_grid(p.own_rows, kThreads), kThreads, 0, p, plan.partial, to);
  return on.error();
}

template <typename Kind>
const char* run_backward(void* stream, const NtXentShape& shape, const void* z, const void* normaliser,
                         const void* inverse_norm, const void* cotangent, const double* temperature,
                         const int64_t* first_pair, void* workspace, void* dz, double* dtemperature) {
  using Sum = typename Kind::Sum;
  using Element = typename Kind::Element;
  const Plan<Kind> plan(shape, temperature, first_pair, workspace);
  const Problem<Kind>& p = plan.problem;
  const Sum *c = static_cast<const Sum*>(cotangent), *of_rows = static_cast<const Sum*>(normaliser);
  const FinishArguments<Kind> finish{static_cast<const Element*>(z),
                                     static_cast<const Sum*>(inverse_norm),
                                     plan.sums,
                                     plan.largest,
                                     static_cast<Element*>(dz),
                                     plan.along};
  Stream on(stream);
  on.launch(pack<Kind>, plan.rows_grid(p.rows, kWarps), kThreads, 0, p, finish.z, static_cast<Sum*>(nullptr));
  on.launch(largest_cotangent<Sum>, dim3(1), kReducingThreads, kWarp * sizeof(Sum), c, p.rows, plan.largest);
  on.launch(fill_columns<Kind>, plan.rows_grid(p.rows, kThreads), kThreads, 0, p, c, of_rows, plan.largest);
  on.launch(backward_tiles<Kind>, plan.tiles_grid(true), kThreads, sizeof(Shared<Kind>), p, plan.sums);
  on.launch(finish_backward<Kind>, plan.rows_grid(p.own_rows, kWarps), kThreads, 0, p, finish);
  on.launch(finish_temperature<Kind>, dim3(1), kReducingThreads, kWarp * sizeof(double), p, plan.along,
            plan.largest, dtemperature);
  return on.error();
}

// Calls `run` with the rows' kind.
template <typename Run>
auto with_kind(DataType type, Run run) {
  switch (type) {
    case DataType::kFloat64:
      return run(DoubleRows());
    case DataType::kBfloat16:
      return run(HalfRows<Bfloat16Bits>());
    case DataType::kFloat16:
      return run(HalfRows<Float16Bits>());
    default:
      return run(SingleRows());
  }
}

const char* refusal(const NtXentShape& shape, int type) {
  if (type < 0 || type > static_cast<int>(DataType::kFloat16)) {
    return "type is none of 0 float32, 1 float64, 2 bfloat16, 3 float16.";
  }
  if (shape.pairs < 1 || shape.dim < 1 || shape.pairs > INT32_MAX / 2) {
    return "NT-Xent needs z of shape (2N, d) with N >= 1, d >= 1 and 2N < 2^31.";
  }
  if (shape.own_pairs < 1 || shape.own_pairs > shape.pairs) {
    return "the own pairs do not lie within the pairs of z: give 1 <= own_pairs <= N.";
  }
  if (divide_up(round_up(shape.dim, kPadding), DoubleRows::kPanel) > 65535) {
    return "d is too large for the CUDA kernels: the limit is 2,097,120.";
  }
  return nullptr;
}

NtXentShape shape_of(int64_t pairs, int64_t dim, int64_t own_pairs, int type) {
  return {pairs, dim, 0, own_pairs, static_cast<DataType>(type)};
}

template <typename... Pointers>
const char* refusal_of_pointers(const Pointers*... pointers) {
  const bool missing = ((pointers == nullptr) || ...);
  return missing ? "an array of NT-Xent is null: every one must lie on the device." : nullptr;
}

}  // namespace
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;

int64_t lowlevel_simclr_nt_xent_cuda_workspace_bytes(int64_t pairs, int64_t dim, int64_t own_pairs,
                                                     int type) {
  const NtXentShape shape = shape_of(pairs, dim, own_pairs, type);
  if (refusal(shape, type) != nullptr) return -1;
  return with_kind(shape.type,
                   [&](auto kind) { return Plan<decltype(kind)>(shape, nullptr, nullptr, nullptr).bytes; });
}

const char* lowlevel_simclr_nt_xent_cuda_forward(void* stream, int64_t pairs, int64_t dim, int64_t own_pairs,
                                                 int type, const void* z, const double* temperature,
                                                 const int64_t* first_pair, void* workspace, void* loss,
                                                 void* normaliser, void* inverse_norm, bool* top1) {
  const NtXentShape shape = shape_of(pairs, dim, own_pairs, type);
  if (const char* why = refusal(shape, type)) return why;
  if (const char* why = refusal_of_pointers(z, temperature, workspace, loss, normaliser, inverse_norm, top1))
    return why;
  return with_kind(shape.type, [&](auto kind) {
    return run_forward<decltype(kind)>(stream, shape, z, temperature, first_pair, workspace, loss, normaliser,
                                       inverse_norm, top1);
  });
}

const char* lowlevel_simclr_nt_xent_cuda_backward(void* stream, int64_t pairs, int64_t dim, int64_t own_pairs,
                                                  int type, const void* z, const void* normaliser,
                                                  const void* inverse_norm, const void* cotangent,
                                                  const double* temperature, const int64_t* first_pair,
                                                  void* workspace, void* dz, double* dtemperature) {
  const NtXentShape shape = shape_of(pairs, dim, own_pairs, type);
  if (const char* why = refusal(shape, type)) return why;
  const char* why =
      refusal_of_pointers(z, normaliser, inverse_norm, cotangent, temperature, workspace, dz, dtemperature);
  if (why != nullptr) return why;
  return with_kind(shape.type, [&](auto kind) {
    return run_backward<decltype(kind)>(stream, shape, z, normaliser, inverse_norm, cotangent, temperature,
                                        first_pair, workspace, dz, dtemperature);
  });
}
