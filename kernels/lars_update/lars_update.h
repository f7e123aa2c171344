// One step of LARS (You et al. 2017, as SimCLR uses it) for one variable: the contract of every implementation.
//
//     u  = g + weight_decay w                                   (u = g if the rank is 0 or 1)
//     r  = trust_coefficient |w| / |u|, or 1 if either is 0     (r = 1 if the rank is 0 or 1)
//     v' = momentum v + learning_rate r u
//     w' = w - v'
//
// Types. The weight w, the velocity v and both results (v', w') are float. The gradient g is float or bfloat16. A
// bfloat16 g is converted to float exactly, so it gives the same bits as a float g with the same numbers. Squares are
// exact in double and summed in double, so no norm overflows or vanishes. The product of learning_rate and r is rounded
// once, to float. Each of u, v' and w' may be computed with or without fused multiply-add.
//
// NaN and infinity. If w, g or v is NaN or infinite at an index, so is w' at this index. If the rank is 2 or more and w
// or g is NaN or infinite at any index, a norm is NaN or infinite. This changes r, and so the results at every index.
//
// Ownership. The caller owns every array. `new_weight` may be the same array as w or, if g is float, as g.
// `new_velocity` may be the same array as v. No other two arrays may overlap. `partial_sums` has
// lars_update_partial_sums(count) doubles. Its contents are undefined before and after the call.
//
// Determinism. The result has the same bits for every number of threads. The variable is cut into pieces of a fixed
// size, and the sums over the pieces are added in order.
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
                 double* partial_sums,   // lars_update_partial_sums(count) doubles
                 float* new_weight,      // (count,)
                 float* new_velocity);   // (count,)

}  // namespace lowlevel_simclr
