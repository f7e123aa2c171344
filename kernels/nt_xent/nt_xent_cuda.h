// NT-Xent on a CUDA device: the contract of nt_xent.h, with these differences. As there, N is `pairs`, d is `dim` and
// n is `own_pairs`. Sum is the type double if z has type kFloat64, and float otherwise.
//
// Every array lies on the device. The scalars temperature and first_pair lie there too, because XLA keeps them there.
// first_pair is null if this device owns all pairs.
//
// A launcher (a function that starts CUDA kernels) only enqueues work on `stream` and never waits. So it cannot read
// the scalars, and cannot refuse wrong ones. If the temperature is not positive and finite, or if own pairs lie outside
// 0 .. N-1, all losses and gradients are NaN, and top1 is false everywhere.
//
// Every launcher returns null, or one sentence that says why the call failed. `type` is a DataType.
//
// Workspace. It must be aligned to 16 bytes. It holds three large arrays. The first is x, a packed copy of z
// (nt_xent_products.cuh) with d rounded up to a multiple of 16. The second has the shape (2N, 4) and the type Sum. The
// third has the shape (shares, 2n, d) and the type Sum, with d rounded up in the same way. It holds partial sums. The
// columns are cut into at most 64 shares (nt_xent_problem.cuh), and shares * 2n is at most 2n + 32,768. In all, the
// workspace has O(N d) bytes.
//
// Determinism. On one kind of device, the results have the same bits every time. How the work is cut depends only on
// the size of the problem. No sum depends on the order in which blocks run, and there are no atomics.
#pragma once

#include <cstdint>

#include "../runtime/exported.h"

LOWLEVEL_SIMCLR_EXPORT int64_t lowlevel_simclr_nt_xent_cuda_workspace_bytes(int64_t pairs, int64_t dim,
                                                                            int64_t own_pairs, int type);

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_nt_xent_cuda_forward(
    void* stream, int64_t pairs, int64_t dim, int64_t own_pairs, int type,
    const void* z,              // (2N, d), of `type`
    const double* temperature,  // ()
    const int64_t* first_pair,  // (), or null
    void* workspace,            //
    void* loss,                 // (2n,) Sum
    void* normaliser,           // (2n, 2) Sum
    void* inverse_norm,         // (2N,) Sum
    bool* top1);                // (2n,)

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_nt_xent_cuda_backward(
    void* stream, int64_t pairs, int64_t dim, int64_t own_pairs, int type,
    const void* z,              // (2N, d), of `type`
    const void* normaliser,     // (2N, 2) Sum, of all rows
    const void* inverse_norm,   // (2N,) Sum
    const void* cotangent,      // (2N,) Sum, of all rows
    const double* temperature,  // ()
    const int64_t* first_pair,  // (), or null
    void* workspace,            //
    void* dz,                   // (2n, d), of `type`
    double* dtemperature);      // ()
