// NT-Xent (Chen et al. 2020, eq. 1) and its gradient: the contract of every implementation.
//
// Rows 0..N-1 of z are the first views, and rows N..2N-1 are the second views. p(i) = (i + N) mod 2N is the other view
// of row i. The pair (i, p(i)) is called a positive.
//
//     u_i    = z_i / |z_i|        (0 if |z_i| is 0, or so small that the type cannot hold 1/|z_i|)
//     s_ij   = <u_i, u_j> / temperature
//     loss_i = log sum_{k != i} exp s_ik - s_{i,p(i)}
//     top1_i = s_{i,p(i)} > s_ik for all k other than i and p(i)  (strictly; true if there is no such k)
//
// For a cotangent c_i on loss_i, and with P_ij = exp(s_ij) / sum_{k != i} exp s_ik, P_ii = 0:
//
//     du_i = (1/temperature) [ sum_j (c_i P_ij + c_j P_ji) u_j - (c_i + c_p(i)) u_p(i) ]
//     dz_i = (du_i - <du_i, u_i> u_i) / |z_i|
//     dtemperature = -1/(2 temperature) sum_i <du_i, u_i>       (over own rows; replicas add their results)
//
// Own rows. One device owns all 2N rows. A replica owns the pairs first_pair .. first_pair + own_pairs - 1. With n =
// own_pairs, its 2n own rows are their n first views, and then their n second views. It computes loss and gradient of
// its own rows against all 2N columns.
//
// Two forms. If all pairs are owned, the symmetric form runs. It takes 4 (2N)^2 d floating-point operations for both
// passes together. Otherwise the rectangular form runs. It takes 3 * 2 * (2n)(2N) d.
//
// Types. z and dz have any DataType. Everything else has the type "Sum": double for kFloat64, float for the others.
// 16-bit inputs are widened exactly, and u is never rounded to 16 bits. Subnormal floats and doubles count as 0
// (float_mode.h). If a row holds NaN or infinity, every row that is compared with it becomes NaN.
//
// normaliser, (rows, 2), holds what the backward pass needs to know about the row sums. It holds a shift m_i and r_i =
// sum_{k != i} exp((<u_i, u_k> - m_i) / temperature). m_i is 1 if 2/temperature <= 64. Otherwise m_i is the largest
// <u_i, u_k> of the row. Hence log sum exp s_ik = m_i / temperature + log r_i.
//
// Ownership. The caller owns every array. `workspace` has nt_xent_workspace_bytes(...) bytes, aligned to 64. Its
// contents are undefined before and after the call. The op allocates nothing else that grows with z.
//
// Memory besides inputs and outputs. There are two packed copies of z in Sum, with d rounded up to a few lanes, and
// O(N) more. There is a third copy if dz cannot hold the sums: for 16-bit types, and if d is not a multiple of
// the panel (the block of columns that a packed copy is cut into).
//
// Determinism. The bits are the same for every number of threads and every ParallelFor. Only the size of the problem
// decides how work is cut, and sums are added in one fixed order. Results of different instruction sets differ by
// rounding.
//
// Requires N >= 1, d >= 1, 2N < 2^31, 0 <= first_pair, 1 <= own_pairs, first_pair + own_pairs <= N,
// temperature > 0.
#pragma once

#include <cstdint>

#include "../runtime/data_type.h"
#include "../runtime/parallel_for.h"

namespace lowlevel_simclr {

struct NtXentShape {
  int64_t pairs;       // N
  int64_t dim;         // d
  int64_t first_pair;  // 0 on one device
  int64_t own_pairs;   // n; N on one device
  DataType type;       // the type of z and dz
};

int64_t nt_xent_workspace_bytes(const ParallelFor& parallel, const NtXentShape& shape);

void nt_xent_forward(const ParallelFor& parallel, const NtXentShape& shape,
                     const void* z,       // (2N, d), of `type`
                     double temperature,  //
                     void* workspace,     //
                     void* loss,          // (2n,) Sum
                     void* normaliser,    // (2n, 2) Sum
                     void* inverse_norm,  // (2N,) Sum: 1/|z_i|, or 0 for rows that count as 0
                     bool* top1);         // (2n,)

void nt_xent_backward(const ParallelFor& parallel, const NtXentShape& shape,
                      const void* z,             // (2N, d), of `type`
                      const void* normaliser,    // (2N, 2) Sum, of all rows
                      const void* inverse_norm,  // (2N,) Sum
                      const void* cotangent,     // (2N,) Sum, of all rows
                      double temperature,        //
                      void* workspace,           //
                      void* dz,                  // (2n, d), of `type`
                      double* dtemperature);     // ()

}  // namespace lowlevel_simclr
