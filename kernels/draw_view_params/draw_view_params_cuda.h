// draw_view_params on a CUDA device: the contract of draw_view_params.h, every array on the device.
//
// What the host would refuse cannot be refused in time: where an index or the epoch does not fit its word, the row's box
// is (-1, -1, -1, -1), of which make_views makes NaN. CUDA's exp may differ from the host's in the last bit; a box differs
// only where that meets a tie of its rounding.
//
// The launcher only enqueues on `stream`; it returns null or one sentence. `params` is a host array of eleven device
// pointers in the order of DrawnViewParams.
#pragma once

#include <cstdint>

#include "../runtime/exported.h"

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_draw_view_params_cuda(
    void* stream, int64_t count,
    const int64_t* index,  // (N,)
    const int64_t* key,    // (2,): low word, high word of the seed
    const int64_t* epoch,  // ()
    const double* recipe,  // (27,), ViewRecipeNumbers
    void* const* params);  // 11 device pointers
