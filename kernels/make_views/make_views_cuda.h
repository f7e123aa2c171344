// make_views on a CUDA device: the contract of make_views.h, but with every array on the device. If the parameters of a
// view are invalid, every pixel of this view is NaN.
//
// The launcher (the function that starts the CUDA kernel) only enqueues work on `stream`. It returns null, or one
// sentence that says why the call failed. `pixels` is a PixelType, and `type` is a DataType. `params` is a host array
// with the eleven pointers of ViewParamArrays, in the order of that struct.
//
// Workspace. It must be aligned to 16 bytes. It has 0 bytes if a view fits in shared memory, and otherwise the size of
// a few hundred views.
//
// Determinism. On one kind of device, the results have the same bits every time. A view depends only on its own image
// and parameters.
#pragma once

#include <cstdint>

#include "../runtime/exported.h"

LOWLEVEL_SIMCLR_EXPORT int64_t lowlevel_simclr_make_views_cuda_workspace_bytes(int64_t count, int64_t height,
                                                                               int64_t width,
                                                                               int64_t channels, int64_t size,
                                                                               int pixels, int type);

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_make_views_cuda(
    void* stream, int64_t count, int64_t height, int64_t width, int64_t channels, int64_t size, int pixels,
    int type,
    const void* images,         // (N, height, width, channels)
    const void* const* params,  // 11 device pointers
    const float* mean,          // (channels,)
    const float* inverse_std,   // (channels,)
    void* workspace,            //
    void* views);               // (2N, S, S, channels)
