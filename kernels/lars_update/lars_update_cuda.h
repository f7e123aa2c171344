// lars_update on a CUDA device: the contract of lars_update.h, but every array and the scalars lie on the device.
// `adapts` says whether the variable's rank is 2 or more. The bits of the results depend only on the numbers and on
// `count`, not on where the arrays lie. They may differ from the bits that the CPU computes, because the CPU adds in
// another order.
//
// The launcher (the function that starts the CUDA kernels) only enqueues work on `stream`. It returns null, or one
// sentence that says why the call failed. `partial_sums` has lowlevel_simclr_lars_update_cuda_partial_sums(count)
// doubles. It may be null if the variable does not adapt.
#pragma once

#include <cstdint>

#include "../runtime/exported.h"

// One variable. Each array has `count` elements and lies on the device.
struct LarsVariable {
  int64_t count;
  int32_t adapts;
  const float *weight, *gradient, *velocity;
  float* new_weight;    // may be weight or gradient
  float* new_velocity;  // may be velocity
};

LOWLEVEL_SIMCLR_EXPORT int64_t lowlevel_simclr_lars_update_cuda_partial_sums(int64_t count);

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_lars_update_cuda(
    void* stream, int64_t count, int32_t adapts,
    const float* scalars,   // (4,): learning_rate, momentum, weight_decay, trust_coefficient
    const float* weight,    // (count,)
    const float* gradient,  // (count,)
    const float* velocity,  // (count,)
    double* partial_sums,   // as described above
    float* new_weight,      // (count,), may be weight or gradient
    float* new_velocity);   // (count,), may be velocity

// Updates many variables in a few launches. The results have the same bits as with one call for each variable.
// `variables` lies on the host. It is read before this function returns. `partial_sums` has room for all variables that
// adapt: lowlevel_simclr_lars_update_cuda_partial_sums(count) doubles for each.
LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_lars_update_all_cuda(
    void* stream, int64_t count, const LarsVariable* variables,
    const float* scalars,  // (4,), as above
    double* partial_sums);
