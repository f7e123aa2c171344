// NT-Xent, the loss of SimCLR (Chen et al. 2020, eq. 1), and its gradient: the contract of every implementation.
//
// z holds one row for each of two views of N images. Rows 0..N-1 are the first views, and rows N..2N-1 are the second
// views. Row p(i) = (i + N) mod 2N is the other view of the image of row i. It is called the positive of row i.
//
//     u_i    = z_i / |z_i|    (0 if |z_i| is 0, or so small that 1/|z_i| is too large for the type)
//     s_ij   = <u_i, u_j> / temperature
//     loss_i = log sum_{k != i} exp s_ik - s_{i,p(i)}
//     top1_i = s_{i,p(i)} > s_ik for all k other than i and p(i)    (strictly; true if there is no such k)
//
// The gradient. The cotangent c_i is the gradient of the final result with respect to loss_i. With P_ij = exp(s_ij) /
// sum_{k != i} exp s_ik and P_ii = 0:
//
//     du_i = (1/temperature) [ sum_j (c_i P_ij + c_j P_ji) u_j - (c_i + c_p(i)) u_p(i) ]
//     dz_i = (du_i - <du_i, u_i> u_i) / |z_i|
//     dtemperature = -1/(2 temperature) sum_i <du_i, u_i>    (sum over own rows, see below; replicas add their results)
//
// Own rows. A pair is the two views of one image. A single device owns all 2N rows. If several replicas (copies of the
// model on several devices) share a batch, a replica owns the pairs first_pair .. first_pair + own_pairs - 1. With n =
// own_pairs, it has 2n own rows: first the n first views of these pairs, then their n second views. It computes the
// loss and the gradient of its own rows, each compared with all 2N rows (the columns of s).
//
// Two forms. If one device owns all pairs, the symmetric form runs. It takes 4 (2N)^2 d floating-point operations,
// forward and backward pass together. Otherwise the rectangular form runs. It takes 3 * 2 * (2n)(2N) d operations.
//
// Types. z and dz have any DataType. All other arrays have the type "Sum": double for kFloat64, float for the others.
// 16-bit inputs are converted exactly, and u is never rounded to 16 bits. Subnormal floats and doubles count as 0
// (float_mode.h). If a row holds NaN or infinity, every row that is compared with it becomes NaN.
//
// The array normaliser, (rows, 2), holds what the backward pass needs to know about the sums of the rows: a shift m_i,
// and r_i = sum_{k != i} exp((<u_i, u_k> - m_i) / temperature). If 2/temperature <= 64, m_i is 1. Otherwise m_i is the
// largest <u_i, u_k> of the row. Hence log sum exp s_ik = m_i / temperature + log r_i.
//
// Ownership. The caller owns every array. `workspace` has nt_xent_workspace_bytes(...) bytes, aligned to 64. Its
// contents are undefined before and after the call. The op allocates nothing else that grows with z.
//
// Memory besides inputs and outputs. The workspace holds two packed copies of z in Sum, with d rounded up to whole
// panels (a panel is a block of a few columns of a packed copy), and O(N) more. It holds a third array of this size if
// dz cannot hold the sums of the backward pass. This is so for 16-bit types, and if d is not a multiple of the panel.
//
// Determinism. The results have the same bits for every number of threads and every ParallelFor. How the work is cut
// depends only on the size of the problem, and sums are added in one fixed order. Results of different instruction sets
// differ by rounding.
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
