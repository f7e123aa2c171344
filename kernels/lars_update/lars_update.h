// One step of LARS (You et al. 2017, as SimCLR uses it) for one variable: the contract of every implementation.
//
//     u  = g + weight_decay w                             (u = g where the rank is 0 or 1)
//     r  = trust_coefficient |w| / |u|, 1 where either is 0     (r = 1 where the rank is 0 or 1)
//     v' = momentum v + learning_rate r u
//     w' = w - v'
//
// Types. w, v and both results are float; g is float, or bfloat16, which is widened exactly: the same bits as from its
// float. Squares are exact and summed in double, so that no norm overflows or vanishes; learning_rate r is rounded once,
// to float. Each of u, v' and w' may be computed with or without fused multiply-add. NaN and infinity go into the
// elements that meet them and, through the norms, into all.
//
// Ownership. The caller owns every array. `new_weight` may be w, or g where that is float, `new_velocity` may be v; no
// other two arrays overlap. `partial_sums` has lars_update_partial_sums(count) doubles, its contents before and after
// mean nothing.
//
// Determinism. The same bits for every number of threads: sums are made of pieces of one size, added in their order.
#pragma once

#include <cstdint>

#include "../runtime/data_type.h"
#include "../runtime/parallel_for.h"

namespace lowlevel_simclr {

struct LarsChoices {
  float learning_rate, momentum, weight_decay, trust_coefficient;
  bool adapts;  // the variable's rank is 2 or more: it decays and has a trust ratio
};

int64_t lars_update_partial_sums(int64_t count);

void lars_update(const ParallelFor& parallel, int64_t count, const LarsChoices& choices,
                 const float* weight,    // (count,)
                 const void* gradient,   // (count,) of
                 DataType of_gradient,   // kFloat32 or kBfloat16
                 const float* velocity,  // (count,)
                 double* partial_sums,   //
                 float* new_weight,      // (count,)
                 float* new_velocity);   // (count,)

}  // namespace lowlevel_simclr
