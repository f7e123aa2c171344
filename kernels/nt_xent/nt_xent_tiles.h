// The interface between the schedule of NT-Xent (nt_xent_cpu.cc) and its tiles (nt_xent_tiles.cc, compiled once for
// each instruction set): plain structs and pointers to functions.
#pragma once

#include <stdint.h>

#include "nt_xent.h"

namespace lowlevel_simclr {

constexpr int kBlock = 96;      // rows of a block: a multiple of every tile's rows and columns
constexpr int kRowMargin = 12;  // rows after the last one that a tile may read, but not use

// u, packed twice. Rows after the last one are 0.
template <typename Real>
struct PackedRows {
  int64_t rows, dim;
  int64_t padded_rows;  // a multiple of kBlock, plus kRowMargin
  Real* panelled;       // (ceil(dim / panel), padded_rows, panel): row-major panels of columns
  Real* transposed;     // (padded_rows / panel, dim, panel): panels of rows, transposed
};

// Consecutive rows of u as rows of the matrix. `out` is the place of the first row's results.
struct RowBlock {
  int64_t begin, count, out;
};

template <typename Real>
struct PackArguments {
  PackedRows<Real> u;
  const void* z;
  DataType type;
  Real* inverse_norm;  // (rows,), written by `normalise`, read by `pack`
};

template <typename Real>
struct ForwardArguments {
  PackedRows<Real> u;
  int64_t pairs;
  Real scale;      // log2(e) / temperature
  bool online;     // a running maximum instead of the fixed shift 1
  bool symmetric;  // only columns right of the diagonal, each counted for its own row as well
  // State by own row, over the columns other than the row itself and its positive.
  Real* sum;       // sum of exp2((dot - shift) scale)
  Real* most;      // the largest dot: online, the shift
  Real* positive;  // the dot with the positive
};

template <typename Real>
struct BackwardArguments {
  PackedRows<Real> u;
  int64_t pairs;
  Real scale;
  bool online, symmetric;
  const Real* weight;     // (padded_rows,): c_i / r_i
  const Real* cotangent;  // (padded_rows,): c_i
  const Real* shift;      // (padded_rows,): m_i, read when online
  Real* sums;             // (own rows, sums_stride): += sum_j W_ij u_j
  int64_t sums_stride;    // a multiple of the panel
};

template <typename Real>
struct FinishArguments {
  const void* z;
  DataType type;
  int64_t dim;
  const Real* inverse_norm;
  const Real* sums;
  int64_t sums_stride;
  Real factor;  // multiplies sums - <sums, u> u, before 1/|z_i|
  void* dz;     // may be `sums`
};

template <typename Real>
struct NtXentTiles {
  int64_t panel;
  // Reals of scratch memory that `forward` and `backward` need, aligned to 64 bytes, zero at first.
  int64_t scratch;
  // Write u of rows [begin, end). The first one computes 1/|z| from z, the second one reads it. Rows after the last
  // one become 0.
  void (*normalise_and_pack)(const PackArguments<Real>&, int64_t begin, int64_t end);
  void (*pack)(const PackArguments<Real>&, int64_t begin, int64_t end);
  // Adds rows x columns to the state. Columns begin at a multiple of kBlock; in the symmetric form they may begin at
  // the block's first row.
  void (*forward)(const ForwardArguments<Real>&, RowBlock rows, int64_t column_begin, int64_t column_end,
                  Real* scratch);
  // Adds to the sums of the rows and, in the symmetric form, of the columns. At most kBlock columns.
  void (*backward)(const BackwardArguments<Real>&, RowBlock rows, RowBlock columns, Real* scratch);
  // Writes dz from the sums. Returns sum_i <sums_i, u_i>.
  double (*finish)(const FinishArguments<Real>&, RowBlock rows);
};

// One pair of tables for each instruction set.
const NtXentTiles<float>& nt_xent_tiles_float_avx512();
const NtXentTiles<double>& nt_xent_tiles_double_avx512();
const NtXentTiles<float>& nt_xent_tiles_float_avx2();
const NtXentTiles<double>& nt_xent_tiles_double_avx2();
const NtXentTiles<float>& nt_xent_tiles_float_baseline();
const NtXentTiles<double>& nt_xent_tiles_double_baseline();

}  // namespace lowlevel_simclr
