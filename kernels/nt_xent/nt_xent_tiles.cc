// Tiles of NT-Xent on the CPU. This source is compiled once for each instruction set (LOWLEVEL_SIMCLR_ISA).
//
// Method. A dot is a product <u_i, u_j>. The matrix of all dots is never stored. A tile is a part of it, with kTileRows
// rows and one panel of columns. Its dots are added up in registers over all of d, and then their exponentials are used
// at once. The forward pass sums them along rows and, in the symmetric form, also along columns. The backward pass
// turns them into weights W_ij = E_ij (c_i/r_i + c_j/r_j), where E_ij is the exponential, and c and r are those of
// nt_xent.h. At any time, one block of 96 x 96 weights lies in the cache. For a block with rows I and columns J, two
// small products add W u_J to the sums of the rows, and W^T u_I to the sums of the columns.
//
// Mapping. A tile has two vectors of columns, and as many rows as fit in the registers: 12 x 32 floats with AVX-512, 6
// x 16 with AVX2, 6 x 8 at baseline, 12 x 8 with NEON. Two packed copies of u are enough for all three products (the
// dots, W u_J and W^T u_I). For the dots, the left factor is broadcast element by element from the copy `panelled` (u,
// cut into panels of columns), and the right factor is read as vectors from the copy `transposed`. The two products
// with W read `panelled` as vectors.
//
// Bytes and operations. In the symmetric form, the matrix has (2N)^2/2 elements to compute. For each of them, the
// forward pass takes 2 d operations and the backward pass 6 d. One panel of the right factor (panel * d elements) stays
// in the first-level cache while the 96 rows of a block are multiplied with it. So a block reads about 4 * 96 d
// elements for 3 * 2 * 96^2 d operations. In addition, each vector of exponentials takes about 20 vector instructions.
// Some dots do not count, such as the dot of a row with itself. Masks, which compare indices, leave them out. Only
// tiles that touch the diagonal, the positives or an edge of the matrix need masks.
//
// Tried and not kept: masks in the function that computes a tile. Masks index the tile. If a function indexes a tile
// anywhere, the compiler keeps the tile in memory, not in registers, everywhere in that function. The compilation for
// AVX-512 also took 33 s instead of 9 s.
#include "nt_xent_tiles.h"

#include "../runtime/vectors.h"

#ifndef LOWLEVEL_SIMCLR_ISA
#error "compile with -DLOWLEVEL_SIMCLR_ISA=avx512, avx2 or baseline; on arm64 with =neon"
#endif

namespace lowlevel_simclr {
namespace {

// ---- Constants

#if defined(__AVX512F__) || defined(__aarch64__)  // both have 32 registers of vectors
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif

template <typename Real>
constexpr int kLanes = Lanes<Real>::kCount;
template <typename Real>
constexpr int kPanel = 2 * kLanes<Real>;

// This value means "this dot does not count". It is far below every dot. So with the online maximum (the shift is the
// largest dot so far, for temperature < 1/32), its exponential is negligible beside that of any real dot.
constexpr int kNoDot = -4;

static_assert(kBlock % kTileRows == 0, "blocks are cut into whole tiles");
static_assert(kBlock % kPanel<float> == 0 && kBlock % kPanel<double> == 0,
              "blocks are cut into whole panels");
static_assert(kRowMargin >= kTileRows, "a tile at the edge reads rows after the last one");

// ---- Products in registers

template <typename Real>
using Tile = Vector<Real>[kTileRows][2];

// A tile in memory, for the code that indexes it. If a function indexes a tile anywhere, the compiler keeps the tile in
// memory everywhere in that function. So the code that indexes tiles is in separate functions, which are not inlined
// (LOWLEVEL_APART).
template <typename Real>
struct StoredTile {
  Vector<Real> c[kTileRows][2];
};
#define LOWLEVEL_APART __attribute__((noinline))

template <typename Real>
LOWLEVEL_INLINE StoredTile<Real> stored(const Tile<Real>& c) {
  StoredTile<Real> copy;
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) copy.c[i][0] = c[i][0], copy.c[i][1] = c[i][1];
  return copy;
}

template <typename Real>
LOWLEVEL_INLINE void clear(Tile<Real>& c) {
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) c[i][0] = c[i][1] = Vector<Real>{};
}

// Computes c(i, :) += sum_k a(i, k) b(k, :), where a(i, k) is a[i * kRowStep + k * kDepthStep]. b is packed panel by
// panel.
template <typename Real, int kRowStep, int kDepthStep>
LOWLEVEL_INLINE void multiply(const Real* __restrict a, const Real* __restrict b, int64_t depth,
                              Tile<Real>& c) {
  for (int64_t k = 0; k < depth; ++k) {
    const Vector<Real> b0 = load(b), b1 = load(b + kLanes<Real>);
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      const Vector<Real> x = broadcast(a[i * kRowStep]);
      c[i][0] += x * b0;
      c[i][1] += x * b1;
    }
    a += kDepthStep;
    b += kPanel<Real>;
  }
}

// Computes the dots of kTileRows rows with one panel of columns. Each dot is summed in the order of d, so equal rows
// have equal dots.
template <typename Real>
LOWLEVEL_INLINE void dots(const PackedRows<Real>& u, int64_t row, int64_t column, Tile<Real>& c) {
  constexpr int kWidth = kPanel<Real>;
  const Real* a = u.panelled + row * kWidth;
  const Real* b = u.transposed + column * u.dim;
  clear<Real>(c);
  int64_t left = u.dim;
  for (; left >= kWidth; left -= kWidth) {
    multiply<Real, kWidth, 1>(a, b, kWidth, c);
    a += u.padded_rows * kWidth;
    b += kWidth * kWidth;
  }
  multiply<Real, kWidth, 1>(a, b, left, c);
}

// ---- Masks

// The place of a tile in the matrix, and where the block of the tile ends.
struct Window {
  int64_t row, row_end, column, column_end;
};

LOWLEVEL_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

LOWLEVEL_INLINE int64_t positive_of(int64_t row, int64_t pairs) {
  return row < pairs ? row + pairs : row - pairs;
}

template <typename Real>
LOWLEVEL_INLINE bool needs_masks(const Window& at, int64_t pairs) {
  const auto meets = [&](int64_t row) {
    return row < at.column + kPanel<Real> && at.column < row + kTileRows;
  };
  const bool edge = at.row + kTileRows > at.row_end || at.column + kPanel<Real> > at.column_end;
  return edge || meets(at.row) || meets(at.row + pairs) || meets(at.row - pairs);
}

// Returns the lanes that count for `row`. Their columns lie inside the block and are not the row itself. In the
// symmetric form, they also lie to the right of the diagonal.
template <typename Real, bool kSymmetric>
LOWLEVEL_INLINE IndexVector<Real> kept_lanes(const Window& at, int64_t row, IndexVector<Real> columns) {
  using Index = decltype(columns[0] + 0);
  const Index end = static_cast<Index>(row < at.row_end ? at.column_end : 0), self = static_cast<Index>(row);
  return (columns < end) & (kSymmetric ? columns > self : columns != self);
}

template <typename Real>
LOWLEVEL_INLINE IndexVector<Real> positive_lanes(int64_t row, int64_t pairs, IndexVector<Real> columns) {
  return columns == static_cast<decltype(columns[0] + 0)>(positive_of(row, pairs));
}

// ---- Forward

template <typename Real, bool kSymmetric>
LOWLEVEL_INLINE void record_positive(const ForwardArguments<Real>& f, const RowBlock& rows, const Window& at,
                                     int64_t row, const Vector<Real> (&dots_of_row)[2]) {
  const int64_t other = positive_of(row, f.pairs), lane = other - at.column;
  if (row >= at.row_end || lane < 0 || lane >= kPanel<Real> || other >= at.column_end) return;
  if (kSymmetric && other < row) return;
  const Real dot = dots_of_row[lane / kLanes<Real>][lane % kLanes<Real>];
  f.positive[rows.out + row - rows.begin] = dot;
  if (kSymmetric) f.positive[other] = dot;
}

// The sums and maxima of the rows of a block (one vector for each row), and of the columns of one panel.
template <typename Real>
struct Partial {
  Vector<Real>*row_sum, *row_most;
  Vector<Real> column_sum[2], column_most[2];
};

template <typename Real, bool kSymmetric>
LOWLEVEL_INLINE void count_row(Partial<Real>& partial, int64_t row, Vector<Real> e0, Vector<Real> e1,
                               Vector<Real> dot0, Vector<Real> dot1) {
  partial.row_sum[row] += e0 + e1;
  partial.row_most[row] = larger(partial.row_most[row], larger(dot0, dot1));
  if (!kSymmetric) return;
  partial.column_sum[0] += e0;
  partial.column_sum[1] += e1;
  partial.column_most[0] = larger(partial.column_most[0], dot0);
  partial.column_most[1] = larger(partial.column_most[1], dot1);
}

template <typename Real, bool kSymmetric>
LOWLEVEL_INLINE void count_tile(const Tile<Real>& c, Real scale_, int64_t row, Partial<Real>& partial) {
  const Vector<Real> scale = broadcast(scale_);
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
    const Vector<Real> e0 = exp2<Real>(c[i][0] * scale - scale), e1 = exp2<Real>(c[i][1] * scale - scale);
    count_row<Real, kSymmetric>(partial, row + i, e0, e1, c[i][0], c[i][1]);
  }
}

// Returns the lanes that are summed for `row`: all lanes that count, except its positive.
template <typename Real, bool kSymmetric>
LOWLEVEL_INLINE IndexVector<Real> summed_lanes(const Window& at, int64_t row, int64_t column, int64_t pairs) {
  const IndexVector<Real> columns = lane_indices<Real>(column);
  return kept_lanes<Real, kSymmetric>(at, row, columns) & ~positive_lanes<Real>(row, pairs, columns);
}

template <typename Real, bool kSymmetric>
LOWLEVEL_APART Partial<Real> count_masked_tile(const ForwardArguments<Real>& f, const RowBlock& rows,
                                               const Window& at, StoredTile<Real> tile,
                                               Partial<Real> partial) {
  for (int i = 0; i < kTileRows; ++i) {
    record_positive<Real, kSymmetric>(f, rows, at, at.row + i, tile.c[i]);
    Vector<Real> e[2], dot[2];
    for (int h = 0; h < 2; ++h) {
      const auto summed =
          summed_lanes<Real, kSymmetric>(at, at.row + i, at.column + h * kLanes<Real>, f.pairs);
      e[h] = summed ? exp2<Real>(tile.c[i][h] * f.scale - f.scale) : Vector<Real>{};
      dot[h] = summed ? tile.c[i][h] : broadcast<Real>(kNoDot);
    }
    count_row<Real, kSymmetric>(partial, at.row - rows.begin + i, e[0], e[1], dot[0], dot[1]);
  }
  return partial;
}

template <typename Real>
LOWLEVEL_INLINE void add_columns(const ForwardArguments<Real>& f, int64_t column,
                                 const Partial<Real>& partial) {
  for (int h = 0; h < 2; ++h) {
    Real* sum = f.sum + column + h * kLanes<Real>;
    Real* most = f.most + column + h * kLanes<Real>;
    store<Real>(sum, load(sum) + partial.column_sum[h]);
    store<Real>(most, larger(load(most), partial.column_most[h]));
  }
}

template <typename Real>
LOWLEVEL_INLINE void add_rows(const ForwardArguments<Real>& f, const RowBlock& rows,
                              const Partial<Real>& partial) {
  for (int64_t r = 0; r < rows.count; ++r) {
    Real& most = f.most[rows.out + r];
    f.sum[rows.out + r] += horizontal_sum<Real>(partial.row_sum[r]);
    most = larger(most, horizontal_max<Real>(partial.row_most[r]));
  }
}

// Runs the forward pass with the fixed shift m_i = 1 (nt_xent.h).
template <typename Real, bool kSymmetric>
void forward_fixed(const ForwardArguments<Real>& f, RowBlock rows, int64_t column_begin, int64_t column_end,
                   Real* scratch) {
  Partial<Real> partial;
  partial.row_sum = reinterpret_cast<Vector<Real>*>(scratch);
  partial.row_most = partial.row_sum + kBlock;
  const Vector<Real> none = broadcast<Real>(kNoDot);
  for (int r = 0; r < kBlock; ++r) partial.row_sum[r] = Vector<Real>{}, partial.row_most[r] = none;
  for (int64_t column = column_begin; column < column_end; column += kPanel<Real>) {
    partial.column_sum[0] = partial.column_sum[1] = Vector<Real>{};
    partial.column_most[0] = partial.column_most[1] = none;
    for (int64_t r = 0; r < rows.count; r += kTileRows) {
      const Window at{rows.begin + r, rows.begin + rows.count, column, column_end};
      if (kSymmetric && column + kPanel<Real> <= at.row) break;  // the rest lies below the diagonal
      Tile<Real> c;
      dots(f.u, at.row, column, c);
      if (needs_masks<Real>(at, f.pairs)) {
        partial = count_masked_tile<Real, kSymmetric>(f, rows, at, stored<Real>(c), partial);
      } else {
        count_tile<Real, kSymmetric>(c, f.scale, r, partial);
      }
    }
    if (kSymmetric) add_columns(f, column, partial);
  }
  add_rows(f, rows, partial);
}

// ---- Forward with the online maximum

// Converts a sum of exponentials with the shift `most` to the shift `next`.
template <typename Real>
LOWLEVEL_INLINE Vector<Real> reshift(Vector<Real> sum, Vector<Real> most, Vector<Real> next, Real scale) {
  return sum * exp2<Real>((most - next) * scale);
}

template <typename Real, bool kSymmetric>
LOWLEVEL_APART void store_tile(const ForwardArguments<Real>& f, const RowBlock& rows, const Window& at,
                               StoredTile<Real> tile, Real* to) {
  for (int i = 0; i < kTileRows; ++i) {
    record_positive<Real, kSymmetric>(f, rows, at, at.row + i, tile.c[i]);
    for (int h = 0; h < 2; ++h) {
      const auto summed =
          summed_lanes<Real, kSymmetric>(at, at.row + i, at.column + h * kLanes<Real>, f.pairs);
      store<Real>(to + i * kBlock + h * kLanes<Real>, summed ? tile.c[i][h] : broadcast<Real>(kNoDot));
    }
  }
}

// Computes and stores the dots of one block. Dots that are not summed become kNoDot.
template <typename Real, bool kSymmetric>
void store_dots(const ForwardArguments<Real>& f, const RowBlock& rows, int64_t column_begin,
                int64_t column_end, Real* block) {
  for (int64_t column = column_begin; column < column_end; column += kPanel<Real>) {
    for (int64_t r = 0; r < rows.count; r += kTileRows) {
      Tile<Real> c;
      dots(f.u, rows.begin + r, column, c);
      store_tile<Real, kSymmetric>(f, rows, {rows.begin + r, rows.begin + rows.count, column, column_end},
                                   stored<Real>(c), block + r * kBlock + column - column_begin);
    }
  }
}

template <typename Real>
void add_block_to_rows(const ForwardArguments<Real>& f, const RowBlock& rows, int64_t columns,
                       const Real* block) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const Real* dots_of_row = block + r * kBlock;
    Real& most = f.most[rows.out + r];
    Real& sum = f.sum[rows.out + r];
    Vector<Real> next = broadcast(most);
    for (int64_t j = 0; j < columns; j += kLanes<Real>) next = larger(next, load(dots_of_row + j));
    const Real shift = horizontal_max<Real>(next);
    Vector<Real> sums = {};
    for (int64_t j = 0; j < columns; j += kLanes<Real>)
      sums += exp2<Real>((load(dots_of_row + j) - shift) * f.scale);
    sum = reshift<Real>(broadcast(sum), broadcast(most), broadcast(shift), f.scale)[0] +
          horizontal_sum<Real>(sums);
    most = shift;
  }
}

template <typename Real>
void add_block_to_columns(const ForwardArguments<Real>& f, const RowBlock& rows, int64_t column_begin,
                          int64_t columns, const Real* block) {
  for (int64_t j = 0; j < columns; j += kLanes<Real>) {
    Real* most = f.most + column_begin + j;
    Real* sum = f.sum + column_begin + j;
    Vector<Real> next = load(most);
    for (int64_t r = 0; r < rows.count; ++r) next = larger(next, load(block + r * kBlock + j));
    Vector<Real> sums = reshift<Real>(load(sum), load(most), next, f.scale);
    for (int64_t r = 0; r < rows.count; ++r)
      sums += exp2<Real>((load(block + r * kBlock + j) - next) * f.scale);
    store<Real>(sum, sums);
    store<Real>(most, next);
  }
}

template <typename Real, bool kSymmetric>
void forward_online(const ForwardArguments<Real>& f, RowBlock rows, int64_t column_begin, int64_t column_end,
                    Real* block) {
  for (int64_t begin = column_begin; begin < column_end; begin += kBlock) {
    const int64_t end = smaller(begin + kBlock, column_end);
    const int64_t padded = (end - begin + kLanes<Real> - 1) / kLanes<Real> * kLanes<Real>;
    store_dots<Real, kSymmetric>(f, rows, begin, end, block);
    add_block_to_rows(f, rows, padded, block);
    if (kSymmetric) add_block_to_columns(f, rows, begin, padded, block);
  }
}

template <typename Real>
void forward(const ForwardArguments<Real>& f, RowBlock rows, int64_t column_begin, int64_t column_end,
             Real* scratch) {
  const auto run = f.online ? (f.symmetric ? forward_online<Real, true> : forward_online<Real, false>)
                            : (f.symmetric ? forward_fixed<Real, true> : forward_fixed<Real, false>);
  run(f, rows, column_begin, column_end, scratch);
}

// ---- Backward

// Returns W_ij = E_ij (c_i/r_i + c_j/r_j) for one row and a vector of columns. If kOnline is set, r_i and r_j have
// different shifts.
template <typename Real, bool kOnline>
LOWLEVEL_INLINE Vector<Real> weights_of(const BackwardArguments<Real>& b, Vector<Real> dots_of_row,
                                        int64_t row, int64_t column) {
  const Real row_weight = b.weight[row];
  const Vector<Real> column_weight = load(b.weight + column);
  if (!kOnline) return exp2<Real>(dots_of_row * b.scale - broadcast(b.scale)) * (row_weight + column_weight);
  return row_weight * exp2<Real>((dots_of_row - b.shift[row]) * b.scale) +
         column_weight * exp2<Real>((dots_of_row - load(b.shift + column)) * b.scale);
}

template <typename Real, bool kOnline>
LOWLEVEL_INLINE void weigh_tile(const BackwardArguments<Real>& b, const Window& at, const Tile<Real>& c,
                                Real* to) {
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const int64_t shift = h * kLanes<Real>;
      store<Real>(to + i * kBlock + shift,
                  weights_of<Real, kOnline>(b, c[i][h], at.row + i, at.column + shift));
    }
  }
}

// Turns the dots of a tile into weights. If j is the positive of i, it subtracts c_i + c_j. Entries that do not count
// become 0.
template <typename Real, bool kSymmetric, bool kOnline>
LOWLEVEL_APART void weigh_masked_tile(const BackwardArguments<Real>& b, const Window& at,
                                      StoredTile<Real> tile, Real* to) {
  for (int i = 0; i < kTileRows; ++i) {
    const int64_t row = at.row + i;
    for (int h = 0; h < 2; ++h) {
      const int64_t column = at.column + h * kLanes<Real>;
      const IndexVector<Real> columns = lane_indices<Real>(column);
      const Vector<Real> pull = load(b.cotangent + column) + b.cotangent[row];
      Vector<Real> w = weights_of<Real, kOnline>(b, tile.c[i][h], row, column);
      w -= positive_lanes<Real>(row, b.pairs, columns) ? pull : Vector<Real>{};
      w = kept_lanes<Real, kSymmetric>(at, row, columns) ? w : Vector<Real>{};
      store<Real>(to + i * kBlock + h * kLanes<Real>, w);
    }
  }
}

template <typename Real, bool kSymmetric, bool kOnline>
void weigh_block(const BackwardArguments<Real>& b, const RowBlock& rows, const RowBlock& columns,
                 Real* weights) {
  const int64_t row_end = rows.begin + rows.count, column_end = columns.begin + columns.count;
  for (int64_t j = 0; j < columns.count; j += kPanel<Real>) {
    for (int64_t r = 0; r < rows.count; r += kTileRows) {
      const Window at{rows.begin + r, row_end, columns.begin + j, column_end};
      if (kSymmetric && at.column + kPanel<Real> <= at.row)
        break;  // the rest lies below the diagonal, where nothing is read later
      Tile<Real> c;
      dots(b.u, at.row, at.column, c);
      if (needs_masks<Real>(at, b.pairs)) {
        weigh_masked_tile<Real, kSymmetric, kOnline>(b, at, stored<Real>(c), weights + r * kBlock + j);
      } else {
        weigh_tile<Real, kOnline>(b, at, c, weights + r * kBlock + j);
      }
    }
  }
}

// Computes sums(i, panel) += sum_k w(i, k) u(k, panel) for the first `count` rows of a tile, because the others do not
// exist.
template <typename Real, int kRowStep, int kDepthStep>
LOWLEVEL_INLINE void add_product(const Real* w, const Real* u, int64_t depth, Real* sums, int64_t stride,
                                 int64_t count) {
  Tile<Real> c;
  clear<Real>(c);
  multiply<Real, kRowStep, kDepthStep>(w, u, depth, c);
  if (count >= kTileRows) {
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      Real* to = sums + i * stride;
      store<Real>(to, load(to) + c[i][0]);
      store<Real>(to + kLanes<Real>, load(to + kLanes<Real>) + c[i][1]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      Real* to = sums + i * stride;
      store<Real>(to, load(to) + c[i][0]);
      store<Real>(to + kLanes<Real>, load(to + kLanes<Real>) + c[i][1]);
    }
  }
}

// For one panel of u, adds W u_J to the sums of the rows, and W^T u_I to the sums of the columns. I are the rows of the
// block, and J are its columns. In a block on the diagonal, W is upper triangular, so the part below the diagonal is
// skipped.
template <typename Real, bool kSymmetric>
void apply_weights(const BackwardArguments<Real>& b, const RowBlock& rows, const RowBlock& columns,
                   const Real* weights, const Real* panel, Real* sums) {
  const bool diagonal = kSymmetric && rows.begin == columns.begin;
  const Real* row_panel = panel + rows.begin * kPanel<Real>;
  const Real* column_panel = panel + columns.begin * kPanel<Real>;
  for (int64_t r = 0; r < rows.count; r += kTileRows) {
    const int64_t from = diagonal ? r / kPanel<Real> * kPanel<Real> : 0;
    add_product<Real, kBlock, 1>(weights + r * kBlock + from, column_panel + from * kPanel<Real>,
                                 columns.count - from, sums + (rows.out + r) * b.sums_stride, b.sums_stride,
                                 rows.count - r);
  }
  if (!kSymmetric) return;
  for (int64_t j = 0; j < columns.count; j += kTileRows) {
    const int64_t depth = diagonal ? smaller(j + kTileRows, rows.count) : rows.count;
    add_product<Real, 1, kBlock>(weights + j, row_panel, depth, sums + (columns.out + j) * b.sums_stride,
                                 b.sums_stride, columns.count - j);
  }
}

template <typename Real, bool kSymmetric, bool kOnline>
void backward_block(const BackwardArguments<Real>& b, RowBlock rows, RowBlock columns, Real* weights) {
  weigh_block<Real, kSymmetric, kOnline>(b, rows, columns, weights);
  for (int64_t at = 0; at < b.u.dim; at += kPanel<Real>) {
    apply_weights<Real, kSymmetric>(b, rows, columns, weights, b.u.panelled + at * b.u.padded_rows,
                                    b.sums + at);
  }
}

template <typename Real>
void backward(const BackwardArguments<Real>& b, RowBlock rows, RowBlock columns, Real* scratch) {
  const auto run =
      b.online ? (b.symmetric ? backward_block<Real, true, true> : backward_block<Real, false, true>)
               : (b.symmetric ? backward_block<Real, true, false> : backward_block<Real, false, false>);
  run(b, rows, columns, scratch);
}

// ---- Packing

LOWLEVEL_INLINE void copy(void* to, const void* from, int64_t bytes) { __builtin_memcpy(to, from, bytes); }

// Returns from[0] to from[count - 1] as a vector. The lanes after them are 0.
template <typename Real, typename Input>
LOWLEVEL_INLINE Vector<Real> widen_some(const Input* from, int64_t count) {
  if (count >= kLanes<Real>) return widen(from);
  Input padded[kLanes<Real>] = {};
  copy(padded, from, count * sizeof(Input));
  return widen(padded);
}

template <typename Real, typename Input>
LOWLEVEL_INLINE void narrow_some(Input* to, Vector<Real> v, int64_t count) {
  if (count >= kLanes<Real>) return narrow(to, v);
  Input padded[kLanes<Real>];
  narrow(padded, v);
  copy(to, padded, count * sizeof(Input));
}

// Returns 1 / sqrt(squares), or 0 if the row counts as 0.
template <typename Real>
LOWLEVEL_INLINE Real inverse_root(double squares) {
  const Real inverse = static_cast<Real>(1.0 / __builtin_sqrt(squares));
  return inverse > Real(__FLT_MAX__) && inverse - inverse != 0 ? Real(0) : inverse;
}

// Returns the sum of the squares of a row times `factor`. Squares of floats neither overflow nor vanish in double, but
// squares of doubles may. So `factor` scales the row first.
template <typename Real, typename Input>
double sum_of_squares(const Input* row, int64_t dim, Real factor) {
  SquareSum<Real> squares;
  for (int64_t k = 0; k < dim; k += kLanes<Real>) squares.add(widen_some<Real>(row + k, dim - k) * factor);
  return squares.total();
}

template <typename Real, typename Input>
LOWLEVEL_INLINE Real inverse_norm_of(const Input* row, int64_t dim) {
  const double squares = sum_of_squares<Real>(row, dim, Real(1));
  if (sizeof(Real) == sizeof(float) || (squares > 0x1p-900 && squares < 0x1p1000))
    return inverse_root<Real>(squares);
  const Real factor = squares > 1 ? Real(0x1p-520) : Real(0x1p520);
  return inverse_root<Real>(sum_of_squares<Real>(row, dim, factor)) * factor;
}

// Computes a row of u, and writes it to its place in every panel of columns.
template <typename Real, typename Input>
LOWLEVEL_INLINE void pack_row(const PackedRows<Real>& u, int64_t row, const Input* z, Real inverse_norm) {
  for (int64_t k = 0; k < u.dim; k += kPanel<Real>) {
    Real* to = u.panelled + k * u.padded_rows + row * kPanel<Real>;
    for (int h = 0; h < 2; ++h) {
      const int64_t at = k + h * kLanes<Real>;
      store<Real>(to + h * kLanes<Real>,
                  at < u.dim ? widen_some<Real>(z + at, u.dim - at) * inverse_norm : Vector<Real>{});
    }
  }
}

template <typename Real>
LOWLEVEL_INLINE void clear_row(const PackedRows<Real>& u, int64_t row) {
  for (int64_t k = 0; k < u.dim; k += kPanel<Real>) {
    for (int h = 0; h < 2; ++h) {
      store<Real>(u.panelled + k * u.padded_rows + row * kPanel<Real> + h * kLanes<Real>, Vector<Real>{});
    }
  }
}

// Copies rows [begin, begin + panel) from `panelled` to `transposed`, in square blocks of lanes.
template <typename Real>
void transpose_panel(const PackedRows<Real>& u, int64_t begin) {
  constexpr int kCount = kLanes<Real>;
  for (int64_t k = 0; k < u.dim; k += kCount) {
    const Real* from = u.panelled + k / kPanel<Real> * kPanel<Real> * u.padded_rows + begin * kPanel<Real> +
                       k % kPanel<Real>;
    Real* to = u.transposed + begin * u.dim + k * kPanel<Real>;
    for (int h = 0; h < 2; ++h) {
      Vector<Real> block[kCount];
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) block[i] = load(from + (h * kCount + i) * kPanel<Real>);
      transpose<Real>(block);
      for (int i = 0; i < kCount && k + i < u.dim; ++i)
        store<Real>(to + i * kPanel<Real> + h * kCount, block[i]);
    }
  }
}

template <typename Real, typename Input, bool kNormalise>
void pack_rows(const PackArguments<Real>& p, int64_t begin, int64_t end) {
  const Input* z = static_cast<const Input*>(p.z);
  for (int64_t row = begin; row < end; ++row) {
    if (row >= p.u.rows) {
      clear_row(p.u, row);
      continue;
    }
    const Input* from = z + row * p.u.dim;
    if (kNormalise) p.inverse_norm[row] = inverse_norm_of<Real>(from, p.u.dim);
    pack_row(p.u, row, from, p.inverse_norm[row]);
  }
  for (int64_t row = begin; row + kPanel<Real> <= end; row += kPanel<Real>) transpose_panel(p.u, row);
}

template <bool kNormalise>
void pack_typed(const PackArguments<float>& p, int64_t begin, int64_t end) {
  if (p.type == DataType::kFloat32) return pack_rows<float, float, kNormalise>(p, begin, end);
  if (p.type == DataType::kBfloat16) return pack_rows<float, Bfloat16, kNormalise>(p, begin, end);
  pack_rows<float, Float16, kNormalise>(p, begin, end);
}

template <bool kNormalise>
void pack_typed(const PackArguments<double>& p, int64_t begin, int64_t end) {
  pack_rows<double, double, kNormalise>(p, begin, end);
}

// ---- Finishing

// Computes dz = (sums - <sums, u> u) factor / |z|. Returns <sums, u>.
template <typename Real, typename Input>
LOWLEVEL_INLINE Real project_row(const Input* z, const Real* sums, int64_t dim, Real inverse_norm,
                                 Real factor, Input* dz) {
  Vector<Real> along = {};
  for (int64_t k = 0; k < dim; k += kLanes<Real>) {
    along += load(sums + k) * (widen_some<Real>(z + k, dim - k) * inverse_norm);
  }
  const Real dot = horizontal_sum<Real>(along);
  const Real outer = inverse_norm * factor;
  for (int64_t k = 0; k < dim; k += kLanes<Real>) {
    const Vector<Real> u = widen_some<Real>(z + k, dim - k) * inverse_norm;
    narrow_some<Real>(dz + k, (load(sums + k) - u * dot) * outer, dim - k);
  }
  return dot;
}

template <typename Real, typename Input>
double finish_rows(const FinishArguments<Real>& f, RowBlock rows) {
  double along = 0;
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t row = rows.begin + r, out = rows.out + r;
    along += project_row(static_cast<const Input*>(f.z) + row * f.dim, f.sums + out * f.sums_stride, f.dim,
                         f.inverse_norm[row], f.factor, static_cast<Input*>(f.dz) + out * f.dim);
  }
  return along;
}

double finish_typed(const FinishArguments<float>& f, RowBlock rows) {
  if (f.type == DataType::kFloat32) return finish_rows<float, float>(f, rows);
  if (f.type == DataType::kBfloat16) return finish_rows<float, Bfloat16>(f, rows);
  return finish_rows<float, Float16>(f, rows);
}

double finish_typed(const FinishArguments<double>& f, RowBlock rows) {
  return finish_rows<double, double>(f, rows);
}

// ---- Tables

template <typename Real>
constexpr NtXentTiles<Real> kTable = {kPanel<Real>,  kBlock * kBlock, pack_typed<true>, pack_typed<false>,
                                      forward<Real>, backward<Real>,  finish_typed};

static_assert(kBlock * kBlock >= 2 * kBlock * kLanes<float>,
              "the scratch block holds the forward pass's partial sums");

}  // namespace

#define LOWLEVEL_PASTE2(a, b) a##b
#define LOWLEVEL_PASTE(a, b) LOWLEVEL_PASTE2(a, b)

const NtXentTiles<float>& LOWLEVEL_PASTE(nt_xent_tiles_float_, LOWLEVEL_SIMCLR_ISA)() {
  return kTable<float>;
}
const NtXentTiles<double>& LOWLEVEL_PASTE(nt_xent_tiles_double_, LOWLEVEL_SIMCLR_ISA)() {
  return kTable<double>;
}

}  // namespace lowlevel_simclr
