// One step of LARS (You et al. 2017, as SimCLR uses it) for one variable: the contract of every implementation.
//
//     u  = g + weight_decay w                                   (u = g if the rank is 0 or 1)
//     r  = trust_coefficient |w| / |u|, or 1 if either is 0     (r = 1 if the rank is 0 or 1)
//     v' = momentum v + learning_rate r u
//     w' = w - v'
//
// Types. w, v and both results are float. g is float or bfloat16. A bfloat16 g is widened exactly, so it gives the same
// bits as the same numbers in float. Squares are exact and summed in double, so no norm overflows or vanishes. The
// product learning_rate r is rounded once, to float. Each of u, v' and w' may be computed with or without fused
// multiply-add. NaN or infinity in an element makes that element of the results NaN or infinite. It also makes the
// norms NaN or infinite, and through them it reaches all other elements.
//
// Ownership. The caller owns every array. `new_weight` may be w, or g if g is float. `new_velocity` may be v. No other
// two arrays overlap. `partial_sums` has lars_update_partial_sums(count) doubles. Its contents are undefined before and
// after the call.
//
// Determinism. The bits are the same for every number of threads. The sums are cut into pieces of one fixed size, and
// the pieces are added in their order.
#pragma once

#include <cstdint>

#include "../runtime/data_type.h"
#include "../runtime/parallel_for.h"

namespace lowlevel_simclr {

struct LarsChoices {
  float learning_rate, momentum, weight_decay, trust_coefficient;
  bool adapts;  // the variable's rank is 2 or more, so it has weight decay and a trust ratio
};

int64_t lars_update_partial_sums(int64_t count);

void lars_update(const ParallelFor& parallel, int64_t count, const LarsChoices& choices,
                 const float* weight,    // (count,)
                 const void* gradient,   // (count,), of the type `of_gradient`
                 DataType of_gradient,   // the type of `gradient`: kFloat32 or kBfloat16
                 const float* velocity,  // (count,)
                 double* partial_sums,   //
                 float* new_weight,      // (count,)
                 float* new_velocity);   // (count,)

}  // namespace lowlevel_simclr
