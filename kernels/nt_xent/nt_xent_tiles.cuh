// NT-Xent on CUDA: how a block goes through its tiles of dots. A dot is a product <x_i, x_j> of two packed rows. The
// forward and the backward pass both use this file.
//
// Mapping. A warp has 16 rows. A block has 128 rows, or 64 in float32 and float64. A block goes through its share of
// the columns in tiles of 64 columns, and through d in panels of kPanel:
//
//     forward:   tile of dots -> sum of exponentials, largest dot, the dot with the positive
//     backward:  tile of dots -> W_ij -> sums_i += W_ij u_j
//
// A tile never leaves the registers. In the backward pass, the product that adds to the sums takes W directly from its
// registers. If the rows are stored as float16 ("half rows"), the next tile is copied to shared memory while a block
// works on the current one.
//
// Operations, with F = 2 (2N)^2 d. The forward pass takes F. The backward pass takes F for the dots and F for the
// product with W. It takes F more for every panel of d beyond the first, because each panel has its own block, which
// computes the dots again. If numbers are split into two pieces, a product takes more operations. For bfloat16 and
// float16, the product with W counts twice, because W is two pieces. For float32, every product counts three times.
//
// Bytes. Each block of 128 rows reads all of x once. x comes from the L2 cache as long as it fits there.
//
// Other instructions. Besides the products, each dot takes about 10 instructions in the forward pass and 20 in the
// backward pass. Only special tiles compare the numbers of columns: those that hold a row's own column, a row's
// positive or the last column. Most tiles are not special.
//
// Not used: the symmetry of the matrix. In the backward pass, a tile that is used for its rows and its columns would
// add to the rows of other blocks. That needs float atomics or 2N/64 copies of dz, and saves only F/2 of 3F. In the
// forward pass it would save half, but needs a second reduction and (2N)^2/64 partial sums. Also, top1 needs dots with
// the same bits for equal rows. Even with split products, equal rows get such dots if each row computes all its dots
// itself.
//
// Speed: 0.37 ms for both passes on an H200 with N = 4096, d = 128, bfloat16 (docs/gpu.md). Not tried yet: wgmma.
#pragma once

#include <cmath>

#include "nt_xent_problem.cuh"

namespace lowlevel_simclr {
namespace nt_xent_cuda {

// The shared memory of a block.
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

// Starts to copy one panel of `kCount` rows of x, one piece after another. The panel holds the columns from panel *
// kPanel to (panel + 1) * kPanel - 1. Places without a row or a column become 0.
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

// The part of a block's work that one thread does: two rows, and in each of the eight fragments of a tile two columns.
template <typename Kind>
struct Worker {
  using Sum = typename Kind::Sum;
  const Problem<Kind>& p;
  Shared<Kind>& shared;
  int warp, g, t;
  int buffer = 0;          // the buffer that holds the current tile
  int row[2], partner[2];  // -1 after the last own row
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

  // Waits until all copies that the block has started are visible to the whole block.
  __device__ __forceinline__ void receive() {
    wait_for_copies();
    __syncthreads();
  }

  // Must be called before the first tile. If d has only one panel, this call loads the rows, and they stay in shared
  // memory.
  __device__ __forceinline__ void start(int64_t first) {
    if (p.panels > 1) return;
    load_rows(0);
    if (Kind::kBuffers > 1) load_tile(first, 0, 0);
    buffer = Kind::kBuffers - 1;
  }

  // Computes the dots of the block's rows with the columns of tile `tile`. The last tile of the block is `end` - 1.
  // Afterwards, panel `last` of the tile lies in shared memory.
  __device__ __forceinline__ void dots(int64_t tile, int64_t end, int last, Sum (&c)[kFragments][4]) {
#pragma unroll
    for (int n = 0; n < kFragments; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) c[n][i] = 0;
    p.panels == 1 ? dots_of_one_panel(tile, end, c) : dots_of_panels(tile, last, c);
  }

  __device__ __forceinline__ void dots_of_one_panel(int64_t tile, int64_t end, Sum (&c)[kFragments][4]) {
    if constexpr (Kind::kBuffers > 1) {
      receive();  // from here on, no thread reads the previous tile any more
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

  // Returns whether the tile needs masks. It does if it holds the own column or the positive of one of the warp's rows,
  // or if it reaches past the last column.
  __device__ __forceinline__ bool is_special(int64_t tile) const {
    const int64_t begin = tile * kTile;
    bool special = p.rows - begin < kTile;
    for (int r = 0; r < 2; ++r) special = special || in_tile(row[r], begin) || in_tile(partner[r], begin);
    return __any_sync(kAllLanes, special);
  }

  __device__ __forceinline__ bool in_tile(int column, int64_t begin) const {
    return static_cast<uint32_t>(column - static_cast<int>(begin)) < kTile;
  }

  // Computes <u_i, u_j> from <x_i, x_j>. `product` makes sure that the result is rounded. Otherwise the compiler could
  // fuse this product with the subtraction of a row's largest dot. If it did so in only one of the two passes, the
  // passes would disagree by a rounding, and the factor 1/temperature makes this difference large.
  __device__ __forceinline__ Sum cosine(Sum dot, int r, const Column<Kind>& column) const {
    return product(dot, product(scale[r], column.scale));
  }

  __device__ __forceinline__ int column_in_tile(int n, int i) const { return n * 8 + 2 * t + i % 2; }
};

template <typename Sum>
__device__ __forceinline__ Sum exp2_of(Sum x) {
  return exp2(x);
}

// Returns 2^x with an error within 2^-22 of the result (PTX ISA). Results below the smallest normal float become 0.
// This changes no sum: with the fixed shift no result is below 2^-93, and otherwise the largest term of a sum is 1.
__device__ __forceinline__ float exp2_of(float x) {
#ifdef __CUDACC__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return exp2f(x);
#endif
}

// Returns the larger number. If one of the two is NaN, it returns the other.
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

}  // namespace nt_xent_cuda
}  // namespace lowlevel_simclr
