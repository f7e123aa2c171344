// Code that every CUDA launcher needs: the stream, the launch and its error, the workspace, and shared memory.
//
// A launcher is a host function that starts CUDA kernels. The same source compiles in two ways. nvcc compiles it for a
// GPU. Any C++17 compiler compiles it with cuda_on_host.h, which runs the kernels on the CPU, thread by thread. The
// second way checks indices, schedules, masks and barriers without a GPU.
#pragma once

#include <cstdint>

#include "../runtime/rounding.h"
#include "../runtime/workspace.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "cuda_on_host.h"
#endif

namespace lowlevel_simclr {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The block's dynamic shared memory, aligned to 16 bytes.
#ifdef __CUDACC__
__device__ inline char* shared_memory() {
  extern __shared__ __align__(16) char lowlevel_simclr_shared[];
  return lowlevel_simclr_shared;
}
#else
inline char* shared_memory() { return on_host::shared_memory(); }
#endif

// Starts a copy of 16 bytes from global to shared memory. If `counts` is false, the function writes zeros instead. The
// calling thread may read the bytes after wait_for_copies, and the other threads of the block after the next barrier.
__device__ __forceinline__ void copy_16_bytes(void* to, const void* from, bool counts) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from), "r"(counts ? 16 : 0)
               : "memory");
#else
  if (counts) memcpy(to, from, 16);
  if (!counts) memset(to, 0, 16);
#endif
}

__device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

// The workspace of a launcher. Its arrays are aligned to 256 bytes, as arrays from cudaMalloc are.
using DeviceWorkspace = Workspace<256>;

// Returns a * b. The compiler never fuses this product with an addition.
__device__ __forceinline__ float product(float a, float b) {
#ifdef __CUDACC__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

__device__ __forceinline__ double product(double a, double b) {
#ifdef __CUDACC__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// Launches kernels on one stream. After the first error it launches nothing more and keeps that error.
class Stream {
 public:
  explicit Stream(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  template <typename... Parameters, typename... Arguments>
  void launch(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes,
              Arguments... arguments) {
    if (error_ != nullptr) return;
#ifdef __CUDACC__
    cudaError_t status = cudaSuccess;
    if (shared_bytes > 48 * 1024) {
      status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes));
    }
    if (status == cudaSuccess) {
      cudaLaunchConfig_t config{};
      config.gridDim = grid;
      config.blockDim = dim3(threads);
      config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
      config.stream = stream_;
      status = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
    }
    if (status != cudaSuccess)
      cudaGetLastError();  // clears the error, so that the next caller of CUDA does not receive it
    if (status != cudaSuccess) error_ = cudaGetErrorString(status);
#else
    on_host::launch(grid, threads, shared_bytes, [&] { kernel(arguments...); });
#endif
  }

  // CUDA's message about the first launch that failed, or null.
  const char* error() const { return error_; }

 private:
  cudaStream_t stream_;
  const char* error_ = nullptr;
};

}  // namespace lowlevel_simclr
