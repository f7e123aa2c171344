// draw_view_params on a CUDA device: the contract of draw_view_params.h, but with every array on the device.
//
// The host cannot check numbers on the device without waiting for it. So wrong numbers are no error. Instead the box
// (the crop) of each view with wrong numbers becomes (-1, -1, -1, -1), and make_views fills this view with NaN. There
// are two cases: the index or the epoch does not fit into a 32-bit word, or the image's frame (the part of its array
// that has its pixels) is empty or larger than the array.
//
// CUDA's exp may differ from the host's in the last bit. The box is then the same, unless this bit decides which way a
// number of the box is rounded.
//
// The launcher (the function that starts the CUDA kernel) only enqueues work on `stream`. It returns null, or one
// sentence that says why the call failed. `params` is a host array of eleven device pointers, in the order of
// DrawnViewParams.
#pragma once

#include <cstdint>

#include "../runtime/exported.h"

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_draw_view_params_cuda(
    void* stream, int64_t count,
    const int64_t* index,  // (N,)
    const int64_t* sizes,  // (frames, 2): height and width of each image, or of all of them
    int64_t frames,        // N or 1
    const int64_t* key,    // (2,): low word, high word of the seed
    const int64_t* epoch,  // ()
    const double* recipe,  // (25,), ViewRecipeNumbers
    void* const* params);  // 11 device pointers
