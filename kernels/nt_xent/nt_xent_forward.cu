// The forward pass of NT-Xent on CUDA devices from sm_80 on: loss, normaliser and top1. Contract: nt_xent_cuda.h.
// Formula: nt_xent.h. nt_xent_tiles.cuh explains how a block goes through its tiles (blocks of the matrix of dots <x_i,
// x_j>).
#include <cfloat>
#include <cmath>

#include "../cuda/reduce.cuh"
#include "nt_xent_cuda.h"
#include "nt_xent_tiles.cuh"

namespace lowlevel_simclr {
namespace nt_xent_cuda {
namespace {

constexpr float kNoDot = -4.0f;  // less than the dot of any two rows of u (the normalised z)

// The results of one row so far, in one thread.
template <typename Sum>
struct State {
  Sum sum = 0, most = Sum(kNoDot), positive = Sum(kNoDot);
};

// Adds the dots of `kCount` columns to a state. If kMasked is set, it skips dots that equal kNoDot.
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
      // Both lanes merge in the same order, the lower lane first, so both get the same bits.
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
constexpr int kForwardBlocks =
    sizeof(typename Kind::Element) == 2 ? 2 : 1;  // blocks that should run on one SM at once

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

// Computes the results of each own row, with one thread for each. The thread merges the results of the shares of the
// columns in their order, and adds the positive last.
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

// ---- Launcher

template <typename Kind>
const char* run_forward(void* stream, const NtXentShape& shape, const void* z, const double* temperature,
                        const int64_t* first_pair, void* workspace, void* loss, void* normaliser,
                        void* inverse_norm, bool* top1) {
  using Sum = typename Kind::Sum;
  const Plan<Kind> plan(shape, temperature, first_pair, workspace);
  const Problem<Kind>& p = plan.problem;
  const ForwardOutputs<Sum> to{static_cast<Sum*>(loss), static_cast<Sum*>(normaliser), top1};
  Stream on(stream);
  launch_pack(on, p, z, inverse_norm);
  on.launch(forward_tiles<Kind>, plan.tiles_grid(false), kThreads<Kind>, sizeof(Shared<Kind>), p,
            plan.partial);
  on.launch(finish_forward<Kind>, rows_grid(p.own_rows, kRowThreads), kRowThreads, 0, p, plan.partial, to);
  return on.error();
}

}  // namespace
}  // namespace nt_xent_cuda
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;
using namespace lowlevel_simclr::nt_xent_cuda;

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
