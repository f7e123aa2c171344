// The interface between the schedule of NT-Xent (nt_xent_cpu.cc) and the code for its tiles (nt_xent_tiles.cc). That
// code is compiled once for each instruction set, so this file has only plain structs and pointers to functions.
#pragma once

#include <stdint.h>

#include "nt_xent.h"

namespace lowlevel_simclr {

constexpr int kBlock = 96;      // rows of a block; a multiple of the rows and of the columns of every tile
constexpr int kRowMargin = 12;  // how many rows after the last one a tile may read; it does not use them

// Two packed copies of u. Rows after the last one are 0.
template <typename Real>
struct PackedRows {
  int64_t rows, dim;
  int64_t padded_rows;  // a multiple of kBlock, plus kRowMargin
  Real* panelled;       // (ceil(dim / panel), padded_rows, panel): u cut into panels of `panel` columns
  Real* transposed;  // (padded_rows / panel, dim, panel): u cut into panels of `panel` rows, each transposed
};

// Consecutive rows of u, used as rows of the matrix of dots. `out` is the index of the first row's results.
struct RowBlock {
  int64_t begin, count, out;
};

template <typename Real>
struct PackArguments {
  PackedRows<Real> u;
  const void* z;
  DataType type;
  Real* inverse_norm;  // (rows,); `normalise_and_pack` writes it, `pack` reads it
};

template <typename Real>
struct ForwardArguments {
  PackedRows<Real> u;
  int64_t pairs;
  Real scale;   // log2(e) / temperature
  bool online;  // whether to use the running maximum instead of the fixed shift 1
  bool
      symmetric;  // whether to use only columns right of the diagonal, and to count each dot for both of its rows
  // The results so far, indexed by own row. `sum` and `most` do not include the row itself and its positive.
  Real* sum;       // sum of exp2((dot - shift) scale)
  Real* most;      // the largest dot; it is also the shift if `online` is set
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
  const Real* shift;      // (padded_rows,): m_i, read only if `online` is set
  Real* sums;             // (own rows, sums_stride): receives += sum_j W_ij u_j
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
  Real factor;  // multiplies sums - <sums, u> u before the division by |z_i|
  void* dz;     // may be `sums`
};

template <typename Real>
struct NtXentTiles {
  int64_t panel;
  // How many Reals of scratch memory `forward` and `backward` need. The caller aligns this memory to 64 bytes and sets
  // it to zero at first.
  int64_t scratch;
  // Both functions write the rows of u from `begin` to `end` - 1. `normalise_and_pack` computes 1/|z| from z, and
  // `pack` reads it. Rows after the last one become 0.
  void (*normalise_and_pack)(const PackArguments<Real>&, int64_t begin, int64_t end);
  void (*pack)(const PackArguments<Real>&, int64_t begin, int64_t end);
  // Computes the dots of `rows` with the columns, and adds them to the results so far. The columns begin at a multiple
  // of kBlock. In the symmetric form they may also begin at the first row of the block.
  void (*forward)(const ForwardArguments<Real>&, RowBlock rows, int64_t column_begin, int64_t column_end,
                  Real* scratch);
  // Adds W u to the sums of the rows and, in the symmetric form, W^T u to the sums of the columns. W is the matrix of
  // weights (nt_xent_tiles.cc). There are at most kBlock columns.
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
const NtXentTiles<float>& nt_xent_tiles_float_neon();
const NtXentTiles<double>& nt_xent_tiles_double_neon();

}  // namespace lowlevel_simclr
