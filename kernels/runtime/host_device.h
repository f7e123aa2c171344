// LOWLEVEL_SIMCLR_HOST_DEVICE marks a function that CUDA kernels may call too. For a compiler other than nvcc, the
// macro is empty.
#pragma once

#ifdef __CUDACC__
#define LOWLEVEL_SIMCLR_HOST_DEVICE __host__ __device__
#else
#define LOWLEVEL_SIMCLR_HOST_DEVICE
#endif
