// Runs CUDA kernels on the CPU, for tests only. launch.cuh includes this file if the compiler is not nvcc.
//
// Each CUDA thread of a block is a fibre: a thread of execution that runs until it hands over to the next fibre by
// itself. A fibre hands over at __syncthreads, and where the lanes (threads) of a warp exchange values. So every index,
// mask and barrier of the real source is executed.
//
// Three things differ from a GPU. Blocks run one after another. Shared memory is filled with NaN at first. If not all
// threads reach a barrier, the process ends with a message.
//
// Tests can reverse the order of the threads between two barriers (`on_host::reversed`). If this changes a result, a
// barrier is missing.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "../runtime/exported.h"
#include "../runtime/rounding.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

using cudaStream_t = void*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace on_host {

constexpr int kLanes = 32, kSlotBytes = 64;
constexpr size_t kStackBytes = 256 * 1024;

struct Barrier {
  int arrived = 0;
  int64_t generation = 0;
};

struct Warp {
  Barrier barrier;
  char slots[2][kLanes][kSlotBytes];
};

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  int64_t exchanges = 0;
  bool done = false;
};

struct Block {
  ucontext_t scheduler;
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  Barrier barrier;
  std::vector<uint4> shared;
  int current = 0;
  bool moved = false;  // whether a thread has passed a barrier or ended since the last call of `turn` began
  const std::function<void()>* body = nullptr;
};

inline Block block;
inline dim3 thread_index, block_index, grid_size, block_size;
inline bool reversed = false;

inline char* shared_memory() { return reinterpret_cast<char*>(block.shared.data()); }

inline void hand_over() {
  Fibre& self = block.fibres[block.current];
  swapcontext(&self.context, &block.scheduler);
}

inline void arrive(Barrier& barrier, int expected) {
  const int64_t generation = barrier.generation;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    block.moved = true;
    return;
  }
  while (barrier.generation == generation) hand_over();
}

inline int lane() { return block.current % kLanes; }
inline Warp& warp() { return block.warps[block.current / kLanes]; }

// Lets the lanes of a warp exchange values. Each lane gives one value. Then it can read the value of any lane with
// `of_lane`.
template <typename T>
struct Exchange {
  static_assert(sizeof(T) <= kSlotBytes);
  int parity;
  explicit Exchange(const T& mine) {
    parity = static_cast<int>(block.fibres[block.current].exchanges++ % 2);
    std::memcpy(warp().slots[parity][lane()], &mine, sizeof(T));
    arrive(warp().barrier, kLanes);
  }
  T of_lane(int other) const {
    T value;
    std::memcpy(&value, warp().slots[parity][other], sizeof(T));
    return value;
  }
};

inline void enter() {
  (*block.body)();
  block.fibres[block.current].done = block.moved = true;
  swapcontext(&block.fibres[block.current].context, &block.scheduler);
}

inline void start(int number) {
  Fibre& fibre = block.fibres[number];
  if (fibre.stack == nullptr) fibre.stack.reset(new char[kStackBytes]);
  fibre.done = false;
  fibre.exchanges = 0;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, enter, 0);
}

// Lets every thread that has not ended run up to its next barrier. Returns false if all threads have ended.
inline bool turn(int threads) {
  bool left = false;
  for (int i = 0; i < threads; ++i) {
    const int number = reversed ? threads - 1 - i : i;
    if (block.fibres[number].done) continue;
    left = true;
    block.current = number;
    thread_index = dim3(number, 0, 0);
    swapcontext(&block.scheduler, &block.fibres[number].context);
  }
  return left;
}

inline void run_block(int threads, int64_t shared_bytes, const std::function<void()>& body) {
  block.body = &body;
  block.shared.resize(lowlevel_simclr::divide_up(shared_bytes, 16));
  // Bytes of 0xff make every number NaN.
  if (!block.shared.empty()) std::memset(block.shared.data(), 0xff, block.shared.size() * 16);
  if (static_cast<int>(block.fibres.size()) < threads) block.fibres.resize(threads);
  block.warps.assign(lowlevel_simclr::divide_up(threads, kLanes), Warp());
  block.barrier = Barrier();
  for (int i = 0; i < threads; ++i) start(i);
  do {
    block.moved = false;
    if (!turn(threads)) return;
  } while (block.moved);
  std::fprintf(stderr, "cuda_on_host: a barrier waits for threads that never reach it.\n");
  std::abort();
}

inline void launch(dim3 grid, int threads, int64_t shared_bytes, const std::function<void()>& body) {
  grid_size = grid;
  block_size = dim3(threads);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = dim3(x, y, z);
        run_block(threads, shared_bytes, body);
      }
    }
  }
}

}  // namespace on_host

// For tests: reverses the order of the threads.
LOWLEVEL_SIMCLR_EXPORT __attribute__((used)) inline void lowlevel_simclr_reverse_threads(int reversed) {
  on_host::reversed = reversed != 0;
}

#define threadIdx on_host::thread_index
#define blockIdx on_host::block_index
#define gridDim on_host::grid_size
#define blockDim on_host::block_size

inline void __syncthreads() { on_host::arrive(on_host::block.barrier, static_cast<int>(blockDim.x)); }

inline void __syncwarp() { on_host::arrive(on_host::warp().barrier, on_host::kLanes); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return on_host::Exchange<T>(value).of_lane(on_host::lane() ^ mask);
}

template <typename T>
T __shfl_sync(unsigned, T value, int source) {
  return on_host::Exchange<T>(value).of_lane(source);
}

inline bool __any_sync(unsigned, bool value) {
  const on_host::Exchange<bool> all(value);
  bool any = false;
  for (int lane = 0; lane < on_host::kLanes; ++lane) any = any || all.of_lane(lane);
  return any;
}
