// LARS on CUDA devices. Contract: lars_update_cuda.h. Formula: lars_update.h.
//
// Mapping. A variable is cut into pieces of 2048 floats. The variable has several blocks of 256 threads. They take the
// pieces one after another: block 0 the first piece, block 1 the second, and so on, then block 0 again. In a piece, a
// thread loads two groups of four neighbours, 16 bytes each. The kernel `add_squares` writes one pair of sums, |w|^2
// and |u|^2, for each block. In the kernel `move_weights`, every block adds all pairs of its variable in one fixed
// order. It computes the trust ratio from them and updates the weights of its pieces. A variable that does not adapt
// (lars_update.h) needs only the second kernel. A variable has no more blocks than a large GPU runs at once, so there
// are few pairs.
//
// Many variables share a launch, because a small variable of a ResNet takes less time than a launch. A launch takes as
// many variables as fit in 4 KiB of kernel parameters. A block finds its variable by binary search. The results of a
// variable do not depend on the other variables of the launch.
//
// Bytes and operations. For each element, the first kernel reads 8 bytes. The second kernel reads 12 bytes and writes
// 8. Together they take about 15 operations, four of them in double. Memory is the limit: on an H200, the update of a
// single variable of some millions of floats reaches nine tenths of the bandwidth of a copy (docs/gpu.md). On a large
// GPU, the second kernel may find in the L2 cache what the first kernel read.
//
// Compiled but not run: four groups for each thread instead of two. A thread then needs 1.5 times as many registers. So
// fewer threads fit on a multiprocessor, and together they wait for no more bytes at a time than before.
#include <cmath>

#include "../cuda/reduce.cuh"
#include "lars_update_cuda.h"

// Tests set this number low, so that a block takes several pieces even of a small variable.
#ifndef LOWLEVEL_SIMCLR_BLOCKS_WANTED
#define LOWLEVEL_SIMCLR_BLOCKS_WANTED 512
#endif

namespace lowlevel_simclr {
namespace {

// ---- Constants

constexpr int kThreads = 256, kNeighbours = 4, kVectors = 2;
constexpr int64_t kPiece = kThreads * kVectors * kNeighbours;   // floats
constexpr int64_t kMostBlocks = LOWLEVEL_SIMCLR_BLOCKS_WANTED;  // about four for each SM of a large GPU
constexpr int64_t kReduceBytes = kThreads / kWarp * sizeof(double);
static_assert(kThreads % kWarp == 0 && kThreads / kWarp <= kWarp, "reduce_block");

enum Scalar { kLearningRate, kMomentum, kWeightDecay, kTrustCoefficient };

// ---- Problem

struct Squares {
  double weight, update;  // |w|^2 and |u|^2, or the sums over a part of the elements
};

// One variable, as the kernels see it.
struct Problem {
  int64_t count;
  const float *weight, *gradient, *velocity;
  float *new_weight, *new_velocity;
  Squares* partial_sums;             // one for each block; null if the variable does not adapt
  unsigned first_block, own_blocks;  // the variable's blocks in the launch
  bool adapts, aligned;              // aligned: every array begins at a multiple of 16 bytes
};

// The variables of one launch. The blocks of a variable come before the blocks of the next one.
constexpr int kMostProblems = 56;
struct Batch {
  const float* scalars;
  int count;
  unsigned blocks;  // how many blocks all variables have together
  Problem problem[kMostProblems];
};
static_assert(sizeof(Batch) <= 4096, "the parameters of a kernel");

int64_t blocks(int64_t count) {
  const int64_t pieces = divide_up(count, kPiece);
  return pieces < kMostBlocks ? pieces : kMostBlocks;
}

// Returns the variable of this block. It is the last variable whose first block is not after this block.
__device__ Problem own_problem(const Batch& batch) {
  int low = 0, high = batch.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (batch.problem[middle].first_block <= blockIdx.x)
      low = middle;
    else
      high = middle - 1;
  }
  return batch.problem[low];
}

// ---- What one thread does in a piece

struct alignas(16) Four {
  float at[kNeighbours];
};
static_assert(sizeof(Four) == 16, "one load");

struct Share {
  Four vector[kVectors];
};

// Returns whether a piece is full and aligned for loads of 16 bytes. Only the last piece of a variable can be partial.
__device__ bool is_whole(const Problem& p, int64_t piece) {
  return p.aligned && (piece + 1) * kPiece <= p.count;
}

__device__ int64_t place(int64_t piece, int vector) {
  return piece * kPiece + (vector * kThreads + static_cast<int>(threadIdx.x)) * kNeighbours;
}

// Loads four neighbours. Elements after the end of the array count as 0.
template <bool kWhole>
__device__ Four load_four(const Problem& p, const float* from, int64_t first) {
  if constexpr (kWhole) {
    return *reinterpret_cast<const Four*>(from + first);
  } else {
    Four found;
    for (int i = 0; i < kNeighbours; ++i) found.at[i] = first + i < p.count ? from[first + i] : 0.0f;
    return found;
  }
}

template <bool kWhole>
__device__ Share load(const Problem& p, const float* from, int64_t piece) {
  Share found;
  for (int k = 0; k < kVectors; ++k) found.vector[k] = load_four<kWhole>(p, from, place(piece, k));
  return found;
}

template <bool kWhole>
__device__ void store_four(const Problem& p, float* to, int64_t first, const Four& found) {
  if constexpr (kWhole) {
    *reinterpret_cast<Four*>(to + first) = found;
  } else {
    for (int i = 0; i < kNeighbours && first + i < p.count; ++i) to[first + i] = found.at[i];
  }
}

template <bool kWhole>
__device__ void store(const Problem& p, float* to, int64_t piece, const Share& found) {
  for (int k = 0; k < kVectors; ++k) store_four<kWhole>(p, to, place(piece, k), found.vector[k]);
}

// ---- Trust ratio

// Adds the sums of all threads of the block. Every thread gets the result.
__device__ Squares reduce_squares(const Squares& own) {
  double* scratch = reinterpret_cast<double*>(shared_memory());
  const double weight = reduce_block(own.weight, 0.0, scratch, Add());
  return {weight, reduce_block(own.update, 0.0, scratch, Add())};
}

__device__ Squares all_squares(const Problem& p) {
  Squares own{0, 0};
  for (unsigned i = threadIdx.x; i < p.own_blocks; i += kThreads) {
    own.weight += p.partial_sums[i].weight;
    own.update += p.partial_sums[i].update;
  }
  return reduce_squares(own);
}

__device__ double trust_ratio(const Squares& squares, float coefficient) {
  const bool absent = squares.weight == 0 || squares.update == 0;
  return absent ? 1.0 : coefficient * sqrt(squares.weight) / sqrt(squares.update);
}

// ---- Pieces

// Adds the squares of a piece to `own`. Squares of floats are exact in double.
template <bool kWhole>
__device__ void add_piece(const Problem& p, int64_t piece, float decay, Squares& own) {
  const Share weight = load<kWhole>(p, p.weight, piece), gradient = load<kWhole>(p, p.gradient, piece);
  for (int k = 0; k < kVectors; ++k) {
    for (int i = 0; i < kNeighbours; ++i) {
      const float w = weight.vector[k].at[i], u = gradient.vector[k].at[i] + decay * w;
      own.weight += static_cast<double>(w) * w;
      own.update += static_cast<double>(u) * u;
    }
  }
}

struct Factors {
  float scale, momentum, decay;
};

// Updates the weights of a piece. The results may lie in the memory of the arguments. That is safe: a thread reads its
// elements before it writes them, and no other thread reads these elements.
template <bool kAdapts, bool kWhole>
__device__ void move_piece(const Problem& p, int64_t piece, const Factors& by) {
  Share weight = load<kWhole>(p, p.weight, piece), velocity = load<kWhole>(p, p.velocity, piece);
  const Share gradient = load<kWhole>(p, p.gradient, piece);
  for (int k = 0; k < kVectors; ++k) {
    for (int i = 0; i < kNeighbours; ++i) {
      float &w = weight.vector[k].at[i], &v = velocity.vector[k].at[i];
      const float g = gradient.vector[k].at[i], u = kAdapts ? g + by.decay * w : g;
      v = by.momentum * v + by.scale * u;
      w -= v;
    }
  }
  store<kWhole>(p, p.new_velocity, piece, velocity);
  store<kWhole>(p, p.new_weight, piece, weight);
}

// ---- Kernels

__global__ void __launch_bounds__(kThreads) add_squares(const __grid_constant__ Batch batch) {
  const Problem p = own_problem(batch);
  if (!p.adapts) return;
  const float decay = batch.scalars[kWeightDecay];
  const unsigned block = blockIdx.x - p.first_block;
  Squares own{0, 0};
  for (int64_t piece = block; piece * kPiece < p.count; piece += p.own_blocks)
    is_whole(p, piece) ? add_piece<true>(p, piece, decay, own) : add_piece<false>(p, piece, decay, own);
  const Squares found = reduce_squares(own);
  if (threadIdx.x == 0) p.partial_sums[block] = found;
}

template <bool kAdapts>
__device__ void move_pieces(const Problem& p, const float* scalars) {
  const double ratio = kAdapts ? trust_ratio(all_squares(p), scalars[kTrustCoefficient]) : 1.0;
  const Factors by = {static_cast<float>(scalars[kLearningRate] * ratio), scalars[kMomentum],
                      scalars[kWeightDecay]};
  for (int64_t piece = blockIdx.x - p.first_block; piece * kPiece < p.count; piece += p.own_blocks)
    is_whole(p, piece) ? move_piece<kAdapts, true>(p, piece, by) : move_piece<kAdapts, false>(p, piece, by);
}

// Updates the weights of all variables. It must be launched with as many blocks as `add_squares`.
__global__ void __launch_bounds__(kThreads) move_weights(const __grid_constant__ Batch batch) {
  const Problem p = own_problem(batch);
  p.adapts ? move_pieces<true>(p, batch.scalars) : move_pieces<false>(p, batch.scalars);
}

// ---- Host side

template <typename... Arrays>
bool are_aligned(const Arrays*... arrays) {
  return ((reinterpret_cast<uintptr_t>(arrays) % sizeof(Four) == 0) && ...);
}

// Returns what is wrong with a variable, or null.
const char* fault(const LarsVariable& v, const float* scalars, const double* partial_sums) {
  if (v.count < 0) return "a variable has fewer than 0 elements.";
  if (v.count > 0 &&
      (scalars == nullptr || v.weight == nullptr || v.gradient == nullptr || v.velocity == nullptr ||
       v.new_weight == nullptr || v.new_velocity == nullptr || (v.adapts != 0 && partial_sums == nullptr)))
    return "an array of lars_update is null. Every array must be on the device.";
  return nullptr;
}

Problem problem_of(const LarsVariable& v, Squares* partial_sums, unsigned first_block) {
  const bool aligned = are_aligned(v.weight, v.gradient, v.velocity, v.new_weight, v.new_velocity);
  return {v.count,       v.weight,     v.gradient,
          v.velocity,    v.new_weight, v.new_velocity,
          partial_sums,  first_block,  static_cast<unsigned>(blocks(v.count)),
          v.adapts != 0, aligned};
}

// Launches the kernels of one batch, and empties the batch.
void launch(Stream& on, Batch& batch) {
  if (batch.count == 0) return;
  const dim3 grid(batch.blocks);
  bool adapts = false;
  for (int i = 0; i < batch.count; ++i) adapts = adapts || batch.problem[i].adapts;
  if (adapts) on.launch(add_squares, grid, kThreads, kReduceBytes, batch);
  on.launch(move_weights, grid, kThreads, kReduceBytes, batch);
  batch.count = 0;
  batch.blocks = 0;
}

}  // namespace
}  // namespace lowlevel_simclr

using namespace lowlevel_simclr;

// ---- Launchers

int64_t lowlevel_simclr_lars_update_cuda_partial_sums(int64_t count) { return 2 * blocks(count); }

const char* lowlevel_simclr_lars_update_all_cuda(void* stream, int64_t count, const LarsVariable* variables,
                                                 const float* scalars, double* partial_sums) {
  for (int64_t i = 0; i < count; ++i)
    if (const char* wrong = fault(variables[i], scalars, partial_sums); wrong != nullptr) return wrong;
  Stream on(stream);
  Squares* sums = reinterpret_cast<Squares*>(partial_sums);
  Batch batch{scalars, 0, 0, {}};
  for (int64_t i = 0; i < count; ++i) {
    const LarsVariable& v = variables[i];
    if (v.count == 0) continue;
    if (batch.count == kMostProblems) launch(on, batch);
    const Problem p = problem_of(v, v.adapts != 0 ? sums : nullptr, batch.blocks);
    if (p.adapts) sums += p.own_blocks;
    batch.blocks += p.own_blocks;
    batch.problem[batch.count++] = p;
  }
  launch(on, batch);
  return on.error();
}

const char* lowlevel_simclr_lars_update_cuda(void* stream, int64_t count, int32_t adapts,
                                             const float* scalars, const float* weight, const float* gradient,
                                             const float* velocity, double* partial_sums, float* new_weight,
                                             float* new_velocity) {
  const LarsVariable variable{count, adapts, weight, gradient, velocity, new_weight, new_velocity};
  return lowlevel_simclr_lars_update_all_cuda(stream, 1, &variable, scalars, partial_sums);
}
