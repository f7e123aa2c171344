// NT-Xent on a CUDA device: the contract of nt_xent.h with these differences.
//
// Every array lies on the device. So do the scalars, for XLA has them there: temperature, and first_pair, which is null
// where all pairs are owned. A launcher only enqueues on `stream` and never waits; what it cannot see it cannot refuse:
// a temperature that is not positive and finite, or own pairs outside 0 .. N-1, make every result NaN.
//
// Every launcher returns null, or one sentence that says why nothing useful was enqueued. `type` is a DataType.
//
// Workspace: aligned to 256 bytes; x, a copy of z in its own type with d rounded up to 16; (2N, 4) Sum; and partial sums
// of at most 512 blocks of 64 rows more than the own rows have: O(N d).
//
// Determinism: the same bits every time on one kind of device. Work is cut by the problem's size alone, no sum depends
// on the order in which blocks run, and there are no atomics.
#pragma once

#include <cstdint>

#include "../runtime/exported.h"

LOWLEVEL_SIMCLR_EXPORT int64_t lowlevel_simclr_nt_xent_cuda_workspace_bytes(int64_t pairs, int64_t dim,
                                                                            int64_t own_pairs, int type);

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_nt_xent_cuda_forward(
    void* stream, int64_t pairs, int64_t dim, int64_t own_pairs, int type,
    const void* z,              // (2N, d) type
    const double* temperature,  // ()
    const int64_t* first_pair,  // (), or null
    void* workspace,            //
    void* loss,                 // (2n,) Sum
    void* normaliser,           // (2n, 2) Sum
    void* inverse_norm,         // (2N,) Sum
    bool* top1);                // (2n,)

LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_nt_xent_cuda_backward(
    void* stream, int64_t pairs, int64_t dim, int64_t own_pairs, int type,
    const void* z,              // (2N, d) type
    const void* normaliser,     // (2N, 2) Sum, of all rows
    const void* inverse_norm,   // (2N,) Sum
    const void* cotangent,      // (2N,) Sum, of all rows
    const double* temperature,  // ()
    const int64_t* first_pair,  // (), or null
    void* workspace,            //
    void* dz,                   // (2n, d) type
    double* dtemperature);      // ()
