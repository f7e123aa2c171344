// NT-Xent on CUDA devices from sm_80 on. Contract: nt_xent_cuda.h; formula: nt_xent.h.
//
// Mapping. `pack` writes x_i = z_i 2^e with |x_i| near a power of two and scale_i = 1/|x_i|, so that raw rows are dotted
// and <u_i, u_j> = <x_i, x_j> scale_i scale_j in float32. A warp owns 16 rows, a block 128 of them (64 in float32 and
// float64), and passes over its share of the columns in tiles of 64, d in panels of kPanel:
//     forward:  tile of dots -> sum of exponentials, largest dot, the positive's dot
//     backward: tile of dots -> W_ij -> sums_i += W_ij u_j, from the registers that hold W to those that hold the sums
// The columns are cut into as many shares as give 256 blocks; each share writes its partial results to a place of its
// own, and a last kernel adds them in the order of the columns. The tiles never leave the registers. While a tile of
// half rows is worked on, the next one is on its way to shared memory.
//
// Products: mma.m16n8k16 on rows of float16, exact products, float32 sums. A bfloat16 row of length 2^14 fits float16:
// only what is below 2^-28 of the row's length is rounded, by less than 2^-39 of it; a float32 row is two float16 rows,
// high and low, and low low is left out. W (times scale_j) is split into two float16 numbers too, for W in half
// precision would be wrong by 2^-11. float64: plain fused multiply-adds. The hardware truncates its float32 sums, so a
// chain ends after one panel or one tile and is added up with rounding, small products first. Both passes add the panels
// of a dot in one order, so that a dot has the same bits in both, and exp(s_ij - lse_i) is 1 where all weight is on one
// column.
//
// Operations, with F = 2 (2N)^2 d: forward F, backward 2F (and F more for every kPanel of d beyond the first), the
// second F times 2; for float32 all of it times 3, but W only by 1.5. Bytes: x is read once for each 128 rows, from the L2 cache as
// long as it lies there. Beside the products, a pair of rows takes some 10 instructions forward and 20 backward: only
// the tiles that hold a row's own column, its positive or the end look at column numbers.
//
// The full square, not its upper triangle. Backward, a tile used twice would add to the rows of others: float atomics
// or 2N/64 copies of dz; it would save F/2 of 3F. Forward it would save half, for a second reduction and (2N)^2/64
// partial sums. And a row that sees all columns from its own side gives equal rows bit-equal dots under the split
// products too, which top1 promises.
//
// On an H200, N = 4096, d = 128, bfloat16: 0.37 ms for both passes (docs/gpu.md). Not tried yet: wgmma.
#include <cfloat>
#include <cmath>
#include <cstring>

#include "../cuda/reduce.cuh"
#include "../cuda/tensor_core.cuh"
#include "../runtime/parallel_for.h"
#include "nt_xent.h"
#include "nt_xent_cuda.h"

// Tests set it low, so that a block of a small problem passes over several tiles, as those of large ones do.
#ifndef LOWLEVEL_SIMCLR_BLOCKS_WANTED
#define LOWLEVEL_SIMCLR_BLOCKS_WANTED 256
#endif

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int kTile = 64;                                     // columns of a tile
constexpr int kFragments = kTile / 8;                         // 8-column fragments of a tile
constexpr int kBlocksWanted = LOWLEVEL_SIMCLR_BLOCKS_WANTED;  // one or two for each processor of a large GPU
constexpr int kMostShares = 64;                               //
constexpr int kPadding = 16;                    // d is rounded up to it: the depth of one 16-bit product
constexpr int kRowThreads = 128;                // of the kernels that go over rows, not over tiles
constexpr int kRowWarps = kRowThreads / kWarp;  //
constexpr int kReducingThreads = 1024;          //
constexpr double kFixedShiftTemperature = 2.0 / 64.0;  // as on the CPU
constexpr double kLog2E = 1.4426950408889634;
constexpr float kNoDot = -4.0f;  // below every dot

// ---- What differs between types

// Rows of float, bfloat16 or float16 as float16 numbers: two for a float, x = high + low within 2^-24, otherwise one.
template <typename Z>
struct HalfRows {
  using Element = Z;           // of z
  using Packed = Float16Bits;  // of x
  using Sum = float;
  static constexpr int kWarps = 8, kBuffers = 2;
  static constexpr int kPieces = sizeof(Z) == sizeof(float) ? 2 : 1;
  static constexpr int kPanel = 128,
                       kStride = kPanel + 8;  // the 16 bytes behind a row spread rows over the banks
  // float16 has few exponents: rows of length 2^14 and weights times 2^8 keep what is small within them.
  static constexpr int kRowExponent = 14, kWeightExponent = 8;
  static constexpr int kLowRows = 16 * kWarps * kStride,
                       kLowColumns = kTile * kStride;  // where low pieces begin

  // Element k of a packed row, whose pieces are `stride` apart.
  static __device__ __forceinline__ void store(Packed* row, int64_t k, int64_t stride, float x) {
    for (int piece = 0; piece < kPieces; ++piece) {
      narrow(row + piece * stride + k, x);
      x -= widen(row[piece * stride + k]);
    }
  }

  // c += 16 rows times 64 columns, over `depth` of the panel; the small products first.
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

  // high high, or where `kCross` low high + high low.
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

  // sums += w (16 x 64) times the first `width` columns of the tile's rows of x. A product's C registers are the next
  // one's A registers: two neighbouring fragments of 8 columns are one of depth 16.
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

  // Moves the leading bits of two fragments into one of depth 16, and leaves what remains.
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
  typename Kind::Sum scale, weight, shift, cotangent;  // 1/|x|, c/r, m, c
};

template <typename Kind>
struct Problem {
  int64_t rows, pairs, own_rows, dim, stride;
  int shares, panels;
  const double* temperature;
  const int64_t* first_pair;
  typename Kind::Packed* x;  // (rows, pieces, stride)
  Column<Kind>* columns;     // (rows,)
};

template <typename Kind>
constexpr int kThreads = Kind::kWarps * kWarp;

template <typename Kind>
constexpr int kRowTile = 16 * Kind::kWarps;  // rows of a block: a warp owns the 16 of one product

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
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
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
    Kind::store(p.x + row * Kind::kPieces * p.stride, k, p.stride, static_cast<Sum>(x));
  }
  if (threadIdx.x % kWarp != 0) return;
  p.columns[row].scale = static_cast<Sum>(counts ? inverse / half / other_half : finite ? 0.0 : NAN);
  if (inverse_norm != nullptr) inverse_norm[row] = static_cast<Sum>(counts || norm != norm ? inverse : 0.0);
}

// ---- Tiles

// Shared memory of a block.
template <typename Kind>
struct Shared {
  typename Kind::Packed rows[Kind::kPieces * kRowTile<Kind> * Kind::kStride];
  typename Kind::Packed columns[Kind::kBuffers][Kind::kPieces * kTile * Kind::kStride];
  Column<Kind> of_columns[Kind::kBuffers][kTile];
  int row_numbers[kRowTile<Kind>];
};

static_assert(sizeof(Shared<HalfRows<Bfloat16Bits>>) % 16 == 0 && sizeof(Shared<DoubleRows>) % 16 == 0);
static_assert(sizeof(Shared<HalfRows<Bfloat16Bits>>) <= 80 * 1024, "two blocks fit the 164 KB of sm_80");
static_assert(sizeof(Shared<HalfRows<float>>) <= 160 * 1024, "one block fits the 164 KB of sm_80");

// Begins to copy columns [panel kPanel, + kPanel) of `kCount` rows of x, piece after piece; 0 where there is no row or
// column.
template <typename Kind, int kCount, typename RowOf>
__device__ __forceinline__ void load_panel(const Problem<Kind>& p, int panel, RowOf row_of_index,
                                           typename Kind::Packed* to) {
  constexpr int kPerLoad = 16 / sizeof(typename Kind::Packed), kLoads = Kind::kPanel / kPerLoad;
  static_assert(kPadding % kPerLoad == 0 && Kind::kStride % kPerLoad == 0);
#pragma unroll 2
  for (int i = threadIdx.x; i < Kind::kPieces * kCount * kLoads; i += kThreads<Kind>) {
    const int line = i / kLoads, piece = line / kCount;
    const int64_t row = row_of_index(line % kCount),
                  column = static_cast<int64_t>(panel) * Kind::kPanel + i % kLoads * kPerLoad;
    const bool counts = row >= 0 && row < p.rows && column < p.stride;
    copy_16_bytes(to + line * Kind::kStride + i % kLoads * kPerLoad,
                  p.x + (counts ? (row * Kind::kPieces + piece) * p.stride + column : 0), counts);
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
  int buffer = 0;          // where the tile at hand lies
  int row[2], partner[2];  // -1 behind the last own row
  Sum scale[2];

  __device__ Worker(const Problem<Kind>& p, const Scalars& s)
      : p(p), shared(*reinterpret_cast<Shared<Kind>*>(shared_memory())) {
    warp = threadIdx.x / kWarp;
    g = threadIdx.x % kWarp / 4;
    t = threadIdx.x % 4;
    for (int i = threadIdx.x; i < kRowTile<Kind>; i += kThreads<Kind>) {
      const int64_t own = own_row(i);
      shared.row_numbers[i] = own < p.own_rows ? static_cast<int>(row_of(p, s.first_pair, own)) : -1;
    }
    __syncthreads();
    for (int i = 0; i < 2; ++i) {
      row[i] = shared.row_numbers[warp * 16 + g + 8 * i];
      partner[i] = row[i] < 0 ? -1 : static_cast<int>(positive_of(row[i], p.pairs));
      scale[i] = row[i] < 0 ? Sum(0) : p.columns[row[i]].scale;
    }
  }

  __device__ int64_t own_row(int index) const {
    return static_cast<int64_t>(blockIdx.x) * kRowTile<Kind> + index;
  }

  __device__ __forceinline__ const typename Kind::Packed* columns() const { return shared.columns[buffer]; }
  __device__ __forceinline__ const Column<Kind>& of_column(int at) const {
    return shared.of_columns[buffer][at];
  }

  __device__ __forceinline__ void load_rows(int panel) {
    load_panel<Kind, kRowTile<Kind>>(p, panel, [&](int i) { return shared.row_numbers[i]; }, shared.rows);
  }

  __device__ __forceinline__ void load_tile(int64_t tile, int panel, int to) {
    const int64_t begin = tile * kTile;
    load_panel<Kind, kTile>(p, panel, [&](int i) { return begin + i; }, shared.columns[to]);
    constexpr int kPerColumn = sizeof(Column<Kind>) / 16;
    for (int i = threadIdx.x; i < kTile * kPerColumn; i += kThreads<Kind>) {
      const bool counts = begin + i / kPerColumn < p.rows;
      const char* from = reinterpret_cast<const char*>(p.columns + (counts ? begin : 0));
      copy_16_bytes(reinterpret_cast<char*>(shared.of_columns[to]) + 16 * i, from + (counts ? 16 * i : 0),
                    counts);
    }
  }

  // What was begun is there for the whole block.
  __device__ __forceinline__ void receive() {
    wait_for_copies();
    __syncthreads();
  }

  // Before the first tile: where d is one panel, the rows are loaded once.
  __device__ __forceinline__ void start(int64_t first) {
    if (p.panels > 1) return;
    load_rows(0);
    if (Kind::kBuffers > 1) load_tile(first, 0, 0);
    buffer = Kind::kBuffers - 1;
  }

  // Raw dots of the block's rows with tile `tile` of those before `end`; its panel `last` lies in shared memory then.
  __device__ __forceinline__ void dots(int64_t tile, int64_t end, int last, Sum (&c)[kFragments][4]) {
#pragma unroll
    for (int n = 0; n < kFragments; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) c[n][i] = 0;
    p.panels == 1 ? dots_of_one_panel(tile, end, c) : dots_of_panels(tile, last, c);
  }

  __device__ __forceinline__ void dots_of_one_panel(int64_t tile, int64_t end, Sum (&c)[kFragments][4]) {
    if constexpr (Kind::kBuffers > 1) {
      receive();  // and nobody reads the tile before this one any more
      buffer = 1 - buffer;
      if (tile + 1 < end) load_tile(tile + 1, 0, 1 - buffer);
    } else {
      __syncthreads();
      load_tile(tile, 0, 0);
      receive();
    }
    Kind::dots(shared.rows + warp * 16 * Kind::kStride, columns(), width_of(p, 0), c);
  }

  __device__ __forceinline__ void dots_of_panels(int64_t tile, int last, Sum (&c)[kFragments][4]) {
    for (int panel = 0; panel < p.panels; ++panel) {
      __syncthreads();
      load_rows(panel);
      load_tile(tile, panel, 0);
      receive();
      Sum of_panel[kFragments][4] = {};
      Kind::dots(shared.rows + warp * 16 * Kind::kStride, columns(), width_of(p, panel), of_panel);
#pragma unroll
      for (int n = 0; n < kFragments; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) c[n][i] += of_panel[n][i];
    }
    if (last == p.panels - 1) return;
    __syncthreads();
    load_tile(tile, last, 0);
    receive();
  }

  // Whether the tile holds the own column or the positive of one of the warp's rows, or reaches behind the last column.
  __device__ __forceinline__ bool is_special(int64_t tile) const {
    const int64_t begin = tile * kTile;
    bool special = p.rows - begin < kTile;
    for (int r = 0; r < 2; ++r) special = special || in_tile(row[r], begin) || in_tile(partner[r], begin);
    return __any_sync(kAllLanes, special);
  }

  __device__ __forceinline__ bool in_tile(int column, int64_t begin) const {
    return static_cast<uint32_t>(column - static_cast<int>(begin)) < kTile;
  }

  // <u_i, u_j> from <x_i, x_j>. Rounded on its own: where a compiler fuses it with the subtraction of a row's largest, the
  // passes disagree by a rounding, which 1/tau makes large.
  __device__ __forceinline__ Sum cosine(Sum dot, int r, const Column<Kind>& column) const {
    return product(dot, product(scale[r], column.scale));
  }

  __device__ __forceinline__ int column_in_tile(int n, int i) const { return n * 8 + 2 * t + i % 2; }
};

template <typename Sum>
__device__ __forceinline__ Sum exp2_of(Sum x) {
  return exp2(x);
}

// Within 2^-22 of the power (PTX ISA); what is below the smallest normal float becomes 0, which no sum feels: with a
// fixed shift no power is below 2^-93, and otherwise the largest is 1.
__device__ __forceinline__ float exp2_of(float x) {
#ifdef __CUDACC__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return exp2f(x);
#endif
}

__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }  // a number rather than NaN
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

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

// Adds the dots of `kCount` columns; where `kMasked`, one of kNoDot does not count.
template <bool kOnline, bool kMasked, typename Sum, int kCount>
__device__ __forceinline__ void add_dots(State<Sum>& state, const Sum (&dots)[kCount], Sum k) {
  Sum most = state.most;
#pragma unroll
  for (int i = 0; i < kCount; ++i) most = larger(most, dots[i]);
  Sum sum = kOnline && state.sum != 0 ? state.sum * exp2_of((state.most - most) * k) : state.sum;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const Sum power = kOnline ? exp2_of((dots[i] - most) * k) : exp2_of(fma(dots[i], k, -k));
    sum += kMasked && dots[i] == Sum(kNoDot) ? Sum(0) : power;
  }
  state.sum = sum;
  state.most = most;
}

template <bool kOnline, typename Sum>
__device__ __forceinline__ State<Sum> merged(const State<Sum>& a, const State<Sum>& b, Sum k) {
  State<Sum> both;
  both.most = larger(a.most, b.most);
  const Sum of_a = kOnline && a.sum != 0 ? a.sum * exp2_of((a.most - both.most) * k) : a.sum;
  const Sum of_b = kOnline && b.sum != 0 ? b.sum * exp2_of((b.most - both.most) * k) : b.sum;
  both.sum = of_a + of_b;
  both.positive = a.positive == Sum(kNoDot) ? b.positive : a.positive;
  return both;
}

template <bool kOnline, bool kMasked, typename Kind, typename Sum>
__device__ __forceinline__ void add_tile(const Worker<Kind>& w, int64_t tile, const Sum (&c)[kFragments][4],
                                         State<Sum> (&state)[2], Sum k) {
  const int begin = static_cast<int>(tile * kTile);
  const int64_t columns = w.p.rows - tile * kTile;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    Sum dots[2 * kFragments];
#pragma unroll
    for (int n = 0; n < kFragments; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = w.column_in_tile(n, i);
        const Sum dot = w.cosine(c[n][2 * r + i], r, w.of_column(at));
        const bool positive = kMasked && at == w.partner[r] - begin;
        const bool counts = !kMasked || (at < columns && at != w.row[r] - begin && !positive);
        dots[2 * n + i] = counts ? dot : Sum(kNoDot);
        if (positive) state[r].positive = dot;
      }
    }
    add_dots<kOnline, kMasked>(state[r], dots, k);
  }
}

template <bool kOnline, typename Kind>
__device__ __forceinline__ void forward_share(const Problem<Kind>& p, const Scalars& s,
                                              const Partial<typename Kind::Sum>& partial) {
  using Sum = typename Kind::Sum;
  const Sum k = static_cast<Sum>(kLog2E / s.temperature);
  Worker<Kind> w(p, s);
  State<Sum> state[2];
  const int64_t begin = first_tile(blockIdx.y, p.shares, p.rows),
                end = first_tile(blockIdx.y + 1, p.shares, p.rows);
  w.start(begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    Sum c[kFragments][4];
    w.dots(tile, end, p.panels - 1, c);
    w.is_special(tile) ? add_tile<kOnline, true>(w, tile, c, state, k)
                       : add_tile<kOnline, false>(w, tile, c, state, k);
  }
  for (int r = 0; r < 2; ++r) {
    for (int mask = 2; mask > 0; mask /= 2) {
      State<Sum> other;
      other.sum = __shfl_xor_sync(kAllLanes, state[r].sum, mask);
      other.most = __shfl_xor_sync(kAllLanes, state[r].most, mask);
      other.positive = __shfl_xor_sync(kAllLanes, state[r].positive, mask);
      // Both of the two add the lower lane's to the higher one's: the same bits.
      state[r] = w.t & mask ? merged<kOnline>(other, state[r], k) : merged<kOnline>(state[r], other, k);
    }
    if (w.row[r] < 0 || w.t != 0) continue;
    const int64_t at = blockIdx.y * p.own_rows + w.own_row(w.warp * 16 + w.g + 8 * r);
    partial.sum[at] = state[r].sum;
    partial.most[at] = state[r].most;
    partial.positive[at] = state[r].positive;
  }
}

template <typename Kind>
constexpr int kForwardBlocks = sizeof(typename Kind::Element) == 2 ? 2 : 1;  // of a processor

template <typename Kind>
__global__ void __launch_bounds__(kThreads<Kind>, kForwardBlocks<Kind>)
    forward_tiles(Problem<Kind> p, Partial<typename Kind::Sum> partial) {
  const Scalars s = read_scalars(p);
  is_online(s.temperature) ? forward_share<true>(p, s, partial) : forward_share<false>(p, s, partial);
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
template <bool kOnline, bool kMasked, typename Kind, typename Sum>
__device__ __forceinline__ void weigh_tile(const Worker<Kind>& w, int64_t tile,
                                           const Column<Kind> (&of_rows)[2], Sum (&c)[kFragments][4], Sum k) {
  const Sum factor = Sum(1 << Kind::kRowExponent) * Sum(1 << Kind::kWeightExponent);
  const int begin = static_cast<int>(tile * kTile);
  const int64_t columns = w.p.rows - tile * kTile;
#pragma unroll
  for (int n = 0; n < kFragments; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i / 2, at = w.column_in_tile(n, i);
      const Column<Kind>& other = w.of_column(at);
      const Sum dot = w.cosine(c[n][i], r, other);
      Sum weight = kOnline ? of_rows[r].weight * exp2_of((dot - of_rows[r].shift) * k) +
                                 other.weight * exp2_of((dot - other.shift) * k)
                           : exp2_of(fma(dot, k, -k)) * (of_rows[r].weight + other.weight);
      if (kMasked && at == w.partner[r] - begin) weight -= of_rows[r].cotangent + other.cotangent;
      const bool counts = !kMasked || (at < columns && at != w.row[r] - begin);
      c[n][i] = counts ? weight * (other.scale * factor) : Sum(0);
    }
  }
}

// Block (rows, share of the columns, panel of d): partial sums of W_ij u_j times 2^(kRowExponent + kWeightExponent).
template <bool kOnline, typename Kind>
__device__ __forceinline__ void backward_share(const Problem<Kind>& p, const Scalars& s,
                                               typename Kind::Sum* partial) {
  using Sum = typename Kind::Sum;
  const Sum k = static_cast<Sum>(kLog2E / s.temperature);
  Worker<Kind> w(p, s);
  Column<Kind> of_rows[2];
  for (int r = 0; r < 2; ++r) of_rows[r] = w.row[r] < 0 ? Column<Kind>{} : p.columns[w.row[r]];
  const int panel = blockIdx.z, width = width_of(p, panel);
  Sum sums[Kind::kPanel / 8][4] = {};
  const int64_t begin = first_tile(blockIdx.y, p.shares, p.rows),
                end = first_tile(blockIdx.y + 1, p.shares, p.rows);
  w.start(begin);
  for (int64_t tile = begin; tile < end; ++tile) {
    Sum c[kFragments][4];
    w.dots(tile, end, panel, c);
    w.is_special(tile) ? weigh_tile<kOnline, true>(w, tile, of_rows, c, k)
                       : weigh_tile<kOnline, false>(w, tile, of_rows, c, k);
    Kind::apply(c, w.columns(), width, sums);
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
__global__ void __launch_bounds__(kThreads<Kind>)
    backward_tiles(Problem<Kind> p, typename Kind::Sum* partial) {
  const Scalars s = read_scalars(p);
  is_online(s.temperature) ? backward_share<true>(p, s, partial) : backward_share<false>(p, s, partial);
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
  const int64_t own = static_cast<int64_t>(blockIdx.x) * kRowWarps + threadIdx.x / kWarp;
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
    row_blocks = divide_up(p.own_rows, kRowTile<Kind>);
    const int64_t tiles = divide_up(p.rows, kTile), wanted = divide_up(kBlocksWanted, row_blocks);
    p.shares = static_cast<int>(wanted < tiles ? (wanted < kMostShares ? wanted : kMostShares)
                                               : (tiles < kMostShares ? tiles : kMostShares));
    DeviceWorkspace memory(workspace);
    p.x = memory.take<typename Kind::Packed>(p.rows * Kind::kPieces * p.stride);
    p.columns = memory.take<Column<Kind>>(p.rows);
    // The forward and the backward pass use the same memory.
    const int64_t parts = p.shares * p.own_rows;
    sums = memory.take<Sum>(parts * (p.stride < 3 ? 3 : p.stride));
    partial = {sums, sums == nullptr ? nullptr : sums + parts, sums == nullptr ? nullptr : sums + 2 * parts};
    largest = memory.take<Sum>(1);
    along = memory.take<double>(p.own_rows);
    bytes = memory.bytes();
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
  on.launch(pack<Kind>, plan.rows_grid(p.rows, kRowWarps), kRowThreads, 0, p,
            static_cast<const typename Kind::Element*>(z), static_cast<Sum*>(inverse_norm));
  on.launch(forward_tiles<Kind>, plan.tiles_grid(false), kThreads<Kind>, sizeof(Shared<Kind>), p,
            plan.partial);
  on.launch(finish_forward<Kind>, plan.rows_grid(p.own_rows, kRowThreads), kRowThreads, 0, p, plan.partial,
            to);
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
  on.launch(pack<Kind>, plan.rows_grid(p.rows, kRowWarps), kRowThreads, 0, p, finish.z,
            static_cast<Sum*>(nullptr));
  on.launch(largest_cotangent<Sum>, dim3(1), kReducingThreads, kWarp * sizeof(Sum), c, p.rows, plan.largest);
  on.launch(fill_columns<Kind>, plan.rows_grid(p.rows, kRowThreads), kRowThreads, 0, p, c, of_rows,
            plan.largest);
  on.launch(backward_tiles<Kind>, plan.tiles_grid(true), kThreads<Kind>, sizeof(Shared<Kind>), p, plan.sums);
  on.launch(finish_backward<Kind>, plan.rows_grid(p.own_rows, kRowWarps), kRowThreads, 0, p, finish);
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
      return run(HalfRows<float>());
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
