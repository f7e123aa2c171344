// NT-Xent on CUDA: packs z into x for both passes, and computes the size of their workspace. Contract: nt_xent_cuda.h.
// A packed row is x_i = z_i 2^e, with an exponent e that brings |x_i| near a fixed power of two. scale_i is 1/|x_i|.
// The tiles compute the dots <x_i, x_j>. From these follow <u_i, u_j> = <x_i, x_j> scale_i scale_j, in float32.
// nt_xent_products.cuh says how x is stored.
#include <cfloat>
#include <cmath>

#include "../cuda/reduce.cuh"
#include "nt_xent_cuda.h"
#include "nt_xent_problem.cuh"

namespace lowlevel_simclr {
namespace nt_xent_cuda {
namespace {

template <typename Element>
__device__ double sum_of_squares(const Element* row, int64_t dim, double factor) {
  double sum = 0;
  for (int64_t k = threadIdx.x % kWarp; k < dim; k += kWarp) {
    const double x = factor * flushed(row[k]);
    sum = fma(x, x, sum);
  }
  return reduce_warp(sum, Add());
}

// Returns |z|, however large or small it is. Squares of floats neither overflow nor vanish in double, but squares of
// doubles may.
template <typename Element>
__device__ double norm_of(const Element* row, int64_t dim) {
  const double squares = sum_of_squares(row, dim, 1.0);
  if (sizeof(Element) < sizeof(double) || (squares > 0x1p-900 && squares < 0x1p1000)) return sqrt(squares);
  const double factor = squares > 1 ? 0x1p-520 : 0x1p520;
  return sqrt(sum_of_squares(row, dim, factor)) / factor;
}

// Packs each row with one warp: writes x and its scale, and also 1/|z| if inverse_norm is not null.
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
  // Multiplies by two factors, because 2^exponent may be outside the range of a double.
  const double half = ldexp(1.0, exponent / 2), other_half = ldexp(1.0, exponent - exponent / 2);
  for (int64_t k = threadIdx.x % kWarp; k < p.stride; k += kWarp) {
    const double x = counts && k < p.dim ? flushed(from[k]) * half * other_half : 0.0;
    Kind::store(p.x + row * Kind::kPieces * p.stride, k, p.stride, static_cast<Sum>(x));
  }
  if (threadIdx.x % kWarp != 0) return;
  p.columns[row].scale = static_cast<Sum>(counts ? inverse / half / other_half : finite ? 0.0 : NAN);
  if (inverse_norm != nullptr) inverse_norm[row] = static_cast<Sum>(counts || norm != norm ? inverse : 0.0);
}

}  // namespace

template <typename Kind>
void launch_pack(Stream& on, const Problem<Kind>& p, const void* z, void* inverse_norm) {
  on.launch(pack<Kind>, rows_grid(p.rows, kRowWarps), kRowThreads, 0, p,
            static_cast<const typename Kind::Element*>(z), static_cast<typename Kind::Sum*>(inverse_norm));
}

template void launch_pack(Stream&, const Problem<DoubleRows>&, const void*, void*);
template void launch_pack(Stream&, const Problem<HalfRows<float>>&, const void*, void*);
template void launch_pack(Stream&, const Problem<HalfRows<Bfloat16Bits>>&, const void*, void*);
template void launch_pack(Stream&, const Problem<HalfRows<Float16Bits>>&, const void*, void*);

}  // namespace nt_xent_cuda
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;
using namespace lowlevel_simclr::nt_xent_cuda;

int64_t lowlevel_simclr_nt_xent_cuda_workspace_bytes(int64_t pairs, int64_t dim, int64_t own_pairs,
                                                     int type) {
  const NtXentShape shape = shape_of(pairs, dim, own_pairs, type);
  if (refusal(shape, type) != nullptr) return -1;
  return with_kind(shape.type,
                   [&](auto kind) { return Plan<decltype(kind)>(shape, nullptr, nullptr, nullptr).bytes; });
}
