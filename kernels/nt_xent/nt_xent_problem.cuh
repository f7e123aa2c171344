// NT-Xent on CUDA: the arguments of the kernels (the "problem"). This file also has the code that runs on the host:
// sizes, memory, and the reasons to refuse a call.
//
// The columns are cut into shares, so that there are about kBlocksWanted blocks. Each block writes the partial results
// of its share to a separate place. A last kernel adds them in the order of the columns.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "../cuda/launch.cuh"
#include "nt_xent.h"
#include "nt_xent_products.cuh"

// Tests set this number low, so that a block goes through several tiles even in a small problem.
#ifndef LOWLEVEL_SIMCLR_BLOCKS_WANTED
#define LOWLEVEL_SIMCLR_BLOCKS_WANTED 256
#endif

namespace lowlevel_simclr {
namespace nt_xent_cuda {

// ---- Constants

constexpr int kBlocksWanted = LOWLEVEL_SIMCLR_BLOCKS_WANTED;  // one or two for each SM of a large GPU
constexpr int kMostShares = 64;
constexpr int kPadding = 16;      // d is rounded up to a multiple of this, the depth of one 16-bit product
constexpr int kRowThreads = 128;  // threads of a block in kernels that go through rows instead of tiles
constexpr int kRowWarps = kRowThreads / kWarp;
constexpr double kFixedShiftTemperature = 2.0 / 64.0;  // for the reason see nt_xent_cpu.cc
constexpr double kLog2E = 1.4426950408889634;

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
constexpr int kRowTile = 16 * Kind::kWarps;  // rows of a block; each warp has 16, the rows of one product

// The values of the scalars, which a kernel reads on the device.
struct Scalars {
  double temperature;  // NaN if the call is wrong
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

// Returns the row of z that is own row number `own`. The numbers of the own rows run through the first views, then
// through the second views.
template <typename Kind>
__host__ __device__ __forceinline__ int64_t row_of(const Problem<Kind>& p, int64_t first_pair, int64_t own) {
  const int64_t own_pairs = p.own_rows / 2;
  return first_pair + (own < own_pairs ? own : own - own_pairs + p.pairs);
}

__host__ __device__ __forceinline__ int64_t positive_of(int64_t row, int64_t pairs) {
  return row < pairs ? row + pairs : row - pairs;
}

// Returns the first tile of a share. With T tiles and S shares of the columns, share s holds the tiles from s T / S to
// (s + 1) T / S - 1.
__host__ __device__ __forceinline__ int64_t first_tile(int64_t share, int64_t shares, int64_t rows) {
  return share * divide_up(rows, kTile) / shares;
}

template <typename Element>
__device__ __forceinline__ auto flushed(Element x) {
  const auto wide = widen(x);
  const double smallest = sizeof(wide) == sizeof(float) ? FLT_MIN : DBL_MIN;
  return fabs(wide) < smallest ? decltype(wide)(0) : wide;  // a subnormal number counts as 0
}

// ---- Host side

// The results of the forward pass for each share and own row. `sum` and `most` do not include the row itself and its
// positive.
template <typename Sum>
struct Partial {
  Sum *sum, *most, *positive;  // (shares, own_rows)
};

// The sizes and the memory of both passes.
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
    // The forward pass and the backward pass use the same memory for their partial results.
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
};

inline dim3 rows_grid(int64_t rows, int rows_a_block) {
  return dim3(static_cast<unsigned>(divide_up(rows, rows_a_block)));
}

// Enqueues the kernel that packs z (nt_xent_pack.cu). inverse_norm may be null.
template <typename Kind>
void launch_pack(Stream& on, const Problem<Kind>& p, const void* z, void* inverse_norm);

// Calls `run` with the Kind (HalfRows or DoubleRows, see nt_xent_products.cuh) that belongs to this type.
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

// Returns the reason why the launchers refuse the call, or null.
inline const char* refusal(const NtXentShape& shape, int type) {
  if (type < 0 || type > static_cast<int>(DataType::kFloat16)) {
    return "type must be 0 (float32), 1 (float64), 2 (bfloat16) or 3 (float16).";
  }
  if (shape.pairs < 1 || shape.dim < 1 || shape.pairs > INT32_MAX / 2) {
    return "NT-Xent needs z of shape (2N, d) with N >= 1, d >= 1 and 2N < 2^31.";
  }
  if (shape.own_pairs < 1 || shape.own_pairs > shape.pairs) {
    return "the own pairs do not lie within the pairs of z. Use 1 <= own_pairs <= N.";
  }
  if (divide_up(round_up(shape.dim, kPadding), DoubleRows::kPanel) > 65535) {
    return "d is too large for the CUDA kernels: the limit is 2,097,120.";
  }
  return nullptr;
}

inline NtXentShape shape_of(int64_t pairs, int64_t dim, int64_t own_pairs, int type) {
  return {pairs, dim, 0, own_pairs, static_cast<DataType>(type)};
}

template <typename... Pointers>
const char* refusal_of_pointers(const Pointers*... pointers) {
  const bool missing = ((pointers == nullptr) || ...);
  return missing ? "an array of NT-Xent is null. Every array must be on the device." : nullptr;
}

}  // namespace nt_xent_cuda
}  // namespace lowlevel_simclr
