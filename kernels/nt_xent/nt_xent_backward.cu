// The backward pass of NT-Xent on CUDA devices from sm_80 on: dz and dtemperature. Contract: nt_xent_cuda.h. Formula:
// nt_xent.h. nt_xent_tiles.cuh explains how a block goes through its tiles (blocks of the matrix of dots <x_i, x_j>).
#include <cfloat>
#include <cmath>

#include "../cuda/reduce.cuh"
#include "nt_xent_cuda.h"
#include "nt_xent_tiles.cuh"

namespace lowlevel_simclr {
namespace nt_xent_cuda {
namespace {

constexpr int kReducingThreads = 1024;

// Finds the largest |cotangent| with one block. If the maximum is 0, the result is 1. The cotangents are divided by the
// result, so that no sum overflows, however large the loss scale is.
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

// Turns the dots in `c` into weights W_ij times scale_j, times a power of two that keeps small weights within float16's
// range. W_ij is the factor of u_j in the bracket of du_i (nt_xent.h). Entries that do not count become 0.
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

// Computes partial sums of W_ij u_j times 2^(kRowExponent + kWeightExponent). The grid has one block for each
// combination of three things: a block of rows, a share of the columns, and a panel of d.
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

// Computes dz of each own row, with one warp for each: dz = (sums - <sums, u> u) factor / |z|.
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

// Adds up the contributions of the own rows to dtemperature. One block does this in one fixed order.
template <typename Kind>
__global__ void finish_temperature(Problem<Kind> p, const double* along, const typename Kind::Sum* largest,
                                   double* dtemperature) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < p.own_rows; i += blockDim.x) sum += along[i];
  sum = reduce_block(sum, 0.0, reinterpret_cast<double*>(shared_memory()), Add());
  const double temperature = read_scalars(p).temperature;
  if (threadIdx.x == 0) *dtemperature = -0.5 * sum * *largest / (temperature * temperature);
}

// ---- Launcher

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
  launch_pack(on, p, z, nullptr);
  on.launch(largest_cotangent<Sum>, dim3(1), kReducingThreads, kWarp * sizeof(Sum), c, p.rows, plan.largest);
  on.launch(fill_columns<Kind>, rows_grid(p.rows, kRowThreads), kRowThreads, 0, p, c, of_rows, plan.largest);
  on.launch(backward_tiles<Kind>, plan.tiles_grid(true), kThreads<Kind>, sizeof(Shared<Kind>), p, plan.sums);
  on.launch(finish_backward<Kind>, rows_grid(p.own_rows, kRowWarps), kRowThreads, 0, p, finish);
  on.launch(finish_temperature<Kind>, dim3(1), kReducingThreads, kWarp * sizeof(double), p, plan.along,
            plan.largest, dtemperature);
  return on.error();
}

}  // namespace
}  // namespace nt_xent_cuda
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;
using namespace lowlevel_simclr::nt_xent_cuda;

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
