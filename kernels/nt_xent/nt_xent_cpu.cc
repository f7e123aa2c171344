// NT-Xent on the CPU: memory, the schedule of the work, and the scalar work at the end of both passes. The code for
// tiles (small blocks of the matrix of similarities) is in nt_xent_tiles.cc.
//
// The rows are cut into blocks of 96 rows, and the blocks are put into at most 64 groups. This depends only on the size
// of the problem.
//
// Symmetric form (one device has all rows). Each pair of groups is one step, and this step adds to the sums of the rows
// of both groups. Each group also has steps of its own: one that packs it, before its pairs, and one that computes its
// results, after them. OrderedSteps makes sure that no two steps use the same group at the same time, and that the
// terms are always added to the sums of a group in the same order. So a call needs only one parallel region.
//
// Rectangular form (a replica has only its own rows). First all 2N rows are packed, because each of them is a column
// of the matrix. Then each block of own rows goes through all columns, without the other blocks.
#include <cmath>
#include <cstring>
#include <vector>

#include "../runtime/instruction_set.h"
#include "../runtime/ordered_steps.h"
#include "../runtime/rounding.h"
#include "../runtime/workspace.h"
#include "nt_xent.h"
#include "nt_xent_tiles.h"

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int64_t kMostGroups = 64;
constexpr int64_t kMostWorkers = 256;
constexpr double kFixedShiftTemperature =
    2.0 / 64.0;  // at this temperature and above, exp(-2/tau) does not underflow
constexpr double kLog2E = 1.4426950408889634;
constexpr double kNoDot = -4.0;                 // less than the dot of any two rows of u (the normalised z)
constexpr double kOperationsOfOneThread = 2e6;  // with less work, a second thread costs more than it saves

enum StepKind { kPack, kPair, kTriangle, kFinish };

template <typename Real>
const NtXentTiles<Real>& tiles();

template <>
const NtXentTiles<float>& tiles<float>() {
  LOWLEVEL_SIMCLR_RETURN_TILES(nt_xent_tiles_float);
}

template <>
const NtXentTiles<double>& tiles<double>() {
  LOWLEVEL_SIMCLR_RETURN_TILES(nt_xent_tiles_double);
}

// ---- Memory

bool holds(DataType type, float) { return type == DataType::kFloat32; }
bool holds(DataType type, double) { return type == DataType::kFloat64; }

// The sizes that follow from the shape, and the arrays of both passes in the workspace.
template <typename Real>
struct Plan {
  const NtXentTiles<Real>& tiles;
  NtXentShape shape;
  int64_t rows, own_rows, blocks, groups, workers, padded_dim;
  bool symmetric, sums_in_dz;
  PackedRows<Real> u;
  Real* scratch;                     // (workers, tiles.scratch)
  Real *sum, *most;                  // forward, indexed by own row, padded
  Real* positive;                    // forward, indexed by own row
  Real *weight, *cotangent, *shift;  // backward: (padded_rows,)
  Real* sums;                        // backward: (own rows, padded_dim); null if dz holds the sums
  double* along;                     // backward: (blocks of own rows,)
  int64_t bytes;

  Plan(const ParallelFor& parallel, const NtXentShape& s, void* workspace)
      : tiles(lowlevel_simclr::tiles<Real>()), shape(s) {
    rows = 2 * s.pairs;
    own_rows = 2 * s.own_pairs;
    symmetric = s.own_pairs == s.pairs;
    blocks = divide_up(rows, kBlock);
    groups = std::min(blocks, kMostGroups);
    padded_dim = round_up(s.dim, tiles.panel);
    sums_in_dz = padded_dim == s.dim && holds(s.type, Real());
    const double operations = 2.0 * own_rows * rows * s.dim;
    workers = operations < kOperationsOfOneThread ? 1 : std::min({parallel.threads, groups, kMostWorkers});
    cut(workspace);
  }

  void cut(void* workspace) {
    Workspace<kHostAlignment> memory(workspace);
    u = {rows, shape.dim, blocks * kBlock + kRowMargin, nullptr, nullptr};
    u.panelled = memory.take<Real>(u.padded_rows * padded_dim);
    u.transposed = memory.take<Real>(blocks * kBlock * shape.dim);
    scratch = memory.take<Real>(workers * tiles.scratch);
    Real** const arrays[] = {&sum, &most, &positive, &weight, &cotangent, &shift};
    for (Real** array : arrays) *array = memory.take<Real>(u.padded_rows);
    sums = sums_in_dz ? nullptr : memory.take<Real>(own_rows * padded_dim);
    along = memory.take<double>(own_row_blocks());
    bytes = memory.bytes();
  }

  // How many blocks the own rows have. In the rectangular form, a block has rows of one view only, and the blocks of
  // the first views come before those of the second views.
  int64_t blocks_of_view() const { return symmetric ? blocks : divide_up(shape.own_pairs, kBlock); }
  int64_t own_row_blocks() const { return symmetric ? blocks : 2 * blocks_of_view(); }

  RowBlock own_row_block(int64_t index) const {
    if (symmetric) return block(index);
    const int64_t view = index / blocks_of_view(), begin = index % blocks_of_view() * kBlock;
    const int64_t count = std::min<int64_t>(kBlock, shape.own_pairs - begin);
    return {view * shape.pairs + shape.first_pair + begin, count, view * shape.own_pairs + begin};
  }

  RowBlock block(int64_t index) const {
    const int64_t begin = index * kBlock;
    return {begin, std::min<int64_t>(kBlock, rows - begin), begin};
  }

  int64_t first_block(int64_t group) const { return group * blocks / groups; }
  int64_t end_row(int64_t group) const { return std::min(first_block(group + 1) * kBlock, rows); }

  void pack(const PackArguments<Real>& arguments, int64_t group, bool normalise) const {
    const int64_t begin = first_block(group) * kBlock;
    const int64_t end = group + 1 == groups ? u.padded_rows : first_block(group + 1) * kBlock;
    (normalise ? tiles.normalise_and_pack : tiles.pack)(arguments, begin, end);
  }

  OrderedSteps steps() const {
    OrderedSteps steps(groups);
    for (int64_t g = 0; g < groups; ++g) steps.add(kPack, g);
    steps.add_all_pairs(kPair);
    for (int64_t g = 0; g < groups; ++g) steps.add(kTriangle, g);
    for (int64_t g = 0; g < groups; ++g) steps.add(kFinish, g);
    return steps;
  }

  Real* worker_scratch(int64_t worker) const { return scratch + worker * tiles.scratch; }
  void clear_scratch() const { std::memset(scratch, 0, workers * tiles.scratch * sizeof(Real)); }
};

bool is_online(double temperature) { return !(temperature >= kFixedShiftTemperature); }

// ---- Forward

template <typename Real>
struct ForwardOutputs {
  Real* loss;
  Real (*normaliser)[2];
  bool* top1;
};

// Adds the dot with the positive to the sums over the other columns, and writes the results of the rows.
template <typename Real>
void finish_forward(const ForwardArguments<Real>& f, double temperature, RowBlock rows,
                    const ForwardOutputs<Real>& to) {
  for (int64_t i = rows.out; i < rows.out + rows.count; ++i) {
    const double dot = f.positive[i], others = f.most[i];
    const double shift = f.online ? std::fmax(others, dot) : 1.0;
    const double sum_of_others = f.online ? f.sum[i] * std::exp((others - shift) / temperature) : f.sum[i];
    const double sum = sum_of_others + std::exp((dot - shift) / temperature);
    to.loss[i] = static_cast<Real>(std::log(sum) + (shift - dot) / temperature);
    to.normaliser[i][0] = static_cast<Real>(shift);
    to.normaliser[i][1] = static_cast<Real>(sum);
    to.top1[i] = f.positive[i] > f.most[i] && sum == sum;  // false if the row's sum is NaN
  }
}

template <typename Real>
void clear_state(const ForwardArguments<Real>& f, int64_t begin, int64_t end) {
  std::fill(f.sum + begin, f.sum + end, Real(0));
  std::fill(f.most + begin, f.most + end, Real(kNoDot));
}

template <typename Real>
void forward_symmetric(const ParallelFor& parallel, const Plan<Real>& plan, const PackArguments<Real>& pack,
                       const ForwardArguments<Real>& f, double temperature, const ForwardOutputs<Real>& to) {
  auto body = [&](const Step& step, int64_t worker) {
    const int64_t a = step.first, b = step.second, begin = plan.first_block(a), end = plan.first_block(a + 1);
    if (step.kind == kPack) {
      plan.pack(pack, a, true);
      clear_state(f, begin * kBlock, end * kBlock);
    }
    for (int64_t i = begin; i < end; ++i) {
      const RowBlock rows = plan.block(i);
      const int64_t from = step.kind == kPair ? plan.first_block(b) * kBlock : rows.begin;
      if (step.kind == kPair || step.kind == kTriangle) {
        plan.tiles.forward(f, rows, from, plan.end_row(b), plan.worker_scratch(worker));
      }
      if (step.kind == kFinish) finish_forward(f, temperature, rows, to);
    }
  };
  plan.steps().run(parallel, plan.workers, body);
}

template <typename Real>
void forward_rectangular(const ParallelFor& parallel, const Plan<Real>& plan, const PackArguments<Real>& pack,
                         const ForwardArguments<Real>& f, double temperature,
                         const ForwardOutputs<Real>& to) {
  auto pack_group = [&](int64_t group) { plan.pack(pack, group, true); };
  run_parallel(parallel, plan.groups, pack_group);
  clear_state(f, 0, plan.own_rows);
  std::atomic<int64_t> next{0};
  auto pass = [&](int64_t worker) {
    for (int64_t i; (i = next.fetch_add(1)) < plan.own_row_blocks();) {
      const RowBlock rows = plan.own_row_block(i);
      plan.tiles.forward(f, rows, 0, plan.rows, plan.worker_scratch(worker));
      finish_forward(f, temperature, rows, to);
    }
  };
  run_parallel(parallel, plan.workers, pass);
}

template <typename Real>
void run_forward(const ParallelFor& parallel, const NtXentShape& shape, const void* z, double temperature,
                 void* workspace, void* loss, void* normaliser, void* inverse_norm, bool* top1) {
  const Plan<Real> plan(parallel, shape, workspace);
  plan.clear_scratch();
  const PackArguments<Real> pack{plan.u, z, shape.type, static_cast<Real*>(inverse_norm)};
  const ForwardArguments<Real> f{plan.u,
                                 shape.pairs,
                                 static_cast<Real>(kLog2E / temperature),
                                 is_online(temperature),
                                 plan.symmetric,
                                 plan.sum,
                                 plan.most,
                                 plan.positive};
  const ForwardOutputs<Real> to{static_cast<Real*>(loss), static_cast<Real(*)[2]>(normaliser), top1};
  (plan.symmetric ? forward_symmetric<Real> : forward_rectangular<Real>)(parallel, plan, pack, f, temperature,
                                                                         to);
}

// ---- Backward

// Returns max |c|, or 1 if the maximum is 0. The cotangents are divided by this number, so that no sum overflows,
// however large the loss scale is.
template <typename Real>
Real cotangent_scale(const Real* cotangent, int64_t rows) {
  Real most = 0;
  for (int64_t i = 0; i < rows; ++i) most = std::max(most, std::abs(cotangent[i]));
  return most > 0 ? most : Real(1);
}

template <typename Real>
void fill_weights(const Plan<Real>& plan, const Real* cotangent, const Real (*normaliser)[2], Real scale) {
  for (int64_t i = 0; i < plan.rows; ++i) {
    plan.cotangent[i] = cotangent[i] / scale;
    plan.weight[i] = plan.cotangent[i] / normaliser[i][1];
    plan.shift[i] = normaliser[i][0];
  }
  for (int64_t i = plan.rows; i < plan.u.padded_rows; ++i)
    plan.cotangent[i] = plan.weight[i] = plan.shift[i] = 0;
}

template <typename Real>
void clear_sums(const BackwardArguments<Real>& b, const RowBlock& rows) {
  std::memset(b.sums + rows.out * b.sums_stride, 0, rows.count * b.sums_stride * sizeof(Real));
}

template <typename Real>
void backward_symmetric(const ParallelFor& parallel, const Plan<Real>& plan, const PackArguments<Real>& pack,
                        const BackwardArguments<Real>& b, const FinishArguments<Real>& finish) {
  auto body = [&](const Step& step, int64_t worker) {
    const int64_t begin = plan.first_block(step.first), end = plan.first_block(step.first + 1);
    const int64_t column_end = plan.first_block(step.second + 1);
    if (step.kind == kPack) plan.pack(pack, step.first, false);
    for (int64_t i = begin; i < end; ++i) {
      const RowBlock rows = plan.block(i);
      if (step.kind == kPack) clear_sums(b, rows);
      if (step.kind == kFinish) plan.along[i] = plan.tiles.finish(finish, rows);
      if (step.kind != kPair && step.kind != kTriangle) continue;
      for (int64_t j = step.kind == kPair ? plan.first_block(step.second) : i; j < column_end; ++j) {
        plan.tiles.backward(b, rows, plan.block(j), plan.worker_scratch(worker));
      }
    }
  };
  plan.steps().run(parallel, plan.workers, body);
}

template <typename Real>
void backward_rectangular(const ParallelFor& parallel, const Plan<Real>& plan,
                          const PackArguments<Real>& pack, const BackwardArguments<Real>& b,
                          const FinishArguments<Real>& finish) {
  auto pack_group = [&](int64_t group) { plan.pack(pack, group, false); };
  run_parallel(parallel, plan.groups, pack_group);
  std::atomic<int64_t> next{0};
  auto pass = [&](int64_t worker) {
    for (int64_t i; (i = next.fetch_add(1)) < plan.own_row_blocks();) {
      const RowBlock rows = plan.own_row_block(i);
      clear_sums(b, rows);
      for (int64_t j = 0; j < plan.blocks; ++j) {
        plan.tiles.backward(b, rows, plan.block(j), plan.worker_scratch(worker));
      }
      plan.along[i] = plan.tiles.finish(finish, rows);
    }
  };
  run_parallel(parallel, plan.workers, pass);
}

template <typename Real>
void run_backward(const ParallelFor& parallel, const NtXentShape& shape, const void* z,
                  const void* normaliser, const void* inverse_norm, const void* cotangent, double temperature,
                  void* workspace, void* dz, double* dtemperature) {
  const Plan<Real> plan(parallel, shape, workspace);
  plan.clear_scratch();
  const Real scale = cotangent_scale(static_cast<const Real*>(cotangent), plan.rows);
  fill_weights(plan, static_cast<const Real*>(cotangent), static_cast<const Real(*)[2]>(normaliser), scale);
  Real* sums = plan.sums_in_dz ? static_cast<Real*>(dz) : plan.sums;
  // `pack` only reads the norms. But the forward pass writes them through the same struct, so its pointer is not const.
  const PackArguments<Real> pack{plan.u, z, shape.type,
                                 const_cast<Real*>(static_cast<const Real*>(inverse_norm))};
  const BackwardArguments<Real> b{plan.u,
                                  shape.pairs,
                                  static_cast<Real>(kLog2E / temperature),
                                  is_online(temperature),
                                  plan.symmetric,
                                  plan.weight,
                                  plan.cotangent,
                                  plan.shift,
                                  sums,
                                  plan.padded_dim};
  const FinishArguments<Real> finish{z,
                                     shape.type,
                                     shape.dim,
                                     pack.inverse_norm,
                                     sums,
                                     plan.padded_dim,
                                     static_cast<Real>(scale / temperature),
                                     dz};
  (plan.symmetric ? backward_symmetric<Real> : backward_rectangular<Real>)(parallel, plan, pack, b, finish);
  double along = 0;
  for (int64_t i = 0; i < plan.own_row_blocks(); ++i) along += plan.along[i];
  *dtemperature = -0.5 * along * scale / (temperature * temperature);
}

}  // namespace

// ---- Launchers

int64_t nt_xent_workspace_bytes(const ParallelFor& parallel, const NtXentShape& shape) {
  return shape.type == DataType::kFloat64 ? Plan<double>(parallel, shape, nullptr).bytes
                                          : Plan<float>(parallel, shape, nullptr).bytes;
}

void nt_xent_forward(const ParallelFor& parallel, const NtXentShape& shape, const void* z, double temperature,
                     void* workspace, void* loss, void* normaliser, void* inverse_norm, bool* top1) {
  const FloatMode mode;
  const auto run = shape.type == DataType::kFloat64 ? run_forward<double> : run_forward<float>;
  run(parallel, shape, z, temperature, workspace, loss, normaliser, inverse_norm, top1);
}

void nt_xent_backward(const ParallelFor& parallel, const NtXentShape& shape, const void* z,
                      const void* normaliser, const void* inverse_norm, const void* cotangent,
                      double temperature, void* workspace, void* dz, double* dtemperature) {
  const FloatMode mode;
  const auto run = shape.type == DataType::kFloat64 ? run_backward<double> : run_backward<float>;
  run(parallel, shape, z, normaliser, inverse_norm, cotangent, temperature, workspace, dz, dtemperature);
}

}  // namespace lowlevel_simclr
