// draw_view_params on a CUDA device: the contract of draw_view_params.h, every array on the device.
//
// A device cannot refuse a call in time. If an index or the epoch does not fit a 32-bit word, or if the image's frame
// is empty or larger than its array, the row's box becomes (-1, -1, -1, -1), and make_views writes NaN for it.
//
// CUDA's exp may differ from the host's in the last bit. A box differs only if that decides a tie of its rounding.
//
// The launcher only enqueues on `stream`. It returns null, or one sentence that says why nothing useful was enqueued.
// `params` is a host array of eleven device pointers in the order of DrawnViewParams.
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
