"""Runs the CUDA kernels of SimCLR's loss (NT-Xent) without TensorFlow, and compares the results with NumPy's.

The kernels of an op are started by C functions, its launchers. In tests/kernels/test_cuda.py, the kernels are emulated
on the CPU. In tests/kernels/gpu_kernels.py, they run on a GPU. This module needs only NumPy.

Words and symbols: z has 2N rows of d numbers, one for each of the two views of N images, and dz is its gradient. tau is
the temperature. The positive of a row is the other view of its image; its candidates are all other rows. top1 says
whether the positive is the most similar candidate. A tile is the part of the matrix of similarities that a block of
threads computes at a time. A long row is processed in several parts, the panels.
"""

from __future__ import annotations

import ctypes
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr import reference
from lowlevel_simclr.verification.bound import (
    compute_gradient_scale,
    compute_loss_scale,
    compute_margins,
    compute_temperature_scale,
    find_accumulation_type,
    find_decided_rows,
)
from tests.support.closeness import assert_close
from tests.support.device_arrays import Buffer, Memory, from_bfloat16, to_bfloat16

CODES = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


class Case(NamedTuple):
    """One problem of NT-Xent: shape, type, temperature and kind of rows."""

    pairs: int
    dim: int
    dtype: str = "float32"
    temperature: float = 0.1
    rows: str = "random"  # the kind of rows: random, duplicates, zeros, huge, tiny or spread
    loss_scale: float = 1.0
    own: tuple[int, int] | None = None  # (first_pair, pairs) of one of several devices (replicas); None: all pairs


class Results(NamedTuple):
    """The results of the forward launcher and of the backward launcher."""

    loss: NDArray[Any]
    normaliser: NDArray[Any]
    inverse_norm: NDArray[Any]
    top1: NDArray[np.bool_]
    dz: NDArray[Any]
    dtemperature: NDArray[np.float64]


def small_cases() -> list[Case]:
    """Return cases for every path of the kernels, small enough for an emulation that runs one thread at a time."""
    cases = [Case(37, 20, dtype, tau) for dtype in CODES for tau in (0.1, 0.005)]
    cases += [Case(75, 20, dtype, tau) for dtype in CODES for tau in (0.1, 0.005)]  # a block goes through several tiles
    cases += [Case(75, 131, "bfloat16", 0.01), Case(75, 20, "float32", 0.01, own=(20, 30))]
    cases += [Case(1, 1), Case(1, 33, "bfloat16"), Case(2, 3, "float16"), Case(3, 1, "float64")]
    cases += [Case(33, 131, dtype) for dtype in ("float32", "bfloat16", "float64")]  # rows of several panels
    # Several panels, and a temperature at which one candidate has all the weight. Then the usual formula is exact, so
    # the bound is small. The case fails if the backward pass sums a dot product in another order than the forward pass.
    cases += [Case(33, 300, dtype, 0.01) for dtype in ("float32", "bfloat16", "float64")]
    cases += [Case(33, 24, dtype, 0.05, rows) for rows in ("duplicates", "zeros") for dtype in ("float32", "bfloat16")]
    cases += [Case(20, 24, dtype, 0.05, rows) for rows in ("huge", "tiny") for dtype in ("float32", "bfloat16")]
    cases += [Case(33, 24, dtype, 0.05, "spread") for dtype in ("float32", "bfloat16", "float16")]
    cases += [Case(33, 24, "float32", tau, loss_scale=2.0**15) for tau in (0.005, 0.07)]
    cases += [Case(33, 24, "float16", 0.07, loss_scale=2.0**15)]
    cases += [Case(40, 24, "float32", tau, own=own) for tau in (0.01, 0.1) for own in ((0, 1), (13, 20), (0, 40))]
    return cases


def large_cases() -> list[Case]:
    """Return all cases for a GPU.

    The added cases have many blocks or wide rows. In the emulation they would take too long.
    """
    cases = [Case(pairs, 128, dtype) for pairs in (511, 1024) for dtype in CODES]
    cases += [Case(150, dim, dtype, tau) for dim in (7, 300, 513) for dtype in CODES for tau in (0.1, 0.01)]
    return [*small_cases(), *cases, Case(700, 64, "bfloat16", own=(100, 333)), Case(700, 64, "float64", own=(367, 333))]


def projections(case: Case) -> NDArray[Any]:
    """Return z in the type of the case. bfloat16 numbers are returned as their bits."""
    random = np.random.default_rng(zlib.crc32(repr(case).encode()))
    z = random.normal(size=(2 * case.pairs, case.dim))
    z[case.pairs :] += 1.5 * z[: case.pairs]
    if case.rows == "duplicates":
        z[:] = z[random.integers(0, 5, len(z))]
    if case.rows == "zeros":
        z[random.choice(len(z), len(z) // 3, replace=False)] = 0
    if case.rows in ("huge", "tiny"):
        z *= 10.0 ** (random.uniform(0, 30, (len(z), 1)) * (1 if case.rows == "huge" else -1))
    if case.rows == "spread":  # a row has numbers so large and so small that float16 cannot hold all of them
        z *= 10.0 ** random.uniform(-14, 0, z.shape)
    return to_bfloat16(z) if case.dtype == "bfloat16" else z.astype(case.dtype)


def widened(z: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    return (from_bfloat16(z) if dtype == "bfloat16" else z).astype(np.float64)


def cotangent(case: Case) -> NDArray[np.float64]:
    """Return the weights of the losses (2N,) in the sum whose gradient is computed. float32 can hold them exactly."""
    return case.loss_scale * (np.arange(2 * case.pairs) * 7 % 16 - 7.5) / 8


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the launchers' arguments, and return the library."""
    size, code, pointer = ctypes.c_int64, ctypes.c_int, ctypes.c_void_p
    shape = [size, size, size, code]
    library.lowlevel_simclr_nt_xent_cuda_workspace_bytes.argtypes = shape
    library.lowlevel_simclr_nt_xent_cuda_workspace_bytes.restype = size
    for name, arrays in (("forward", 8), ("backward", 9)):
        launcher = getattr(library, f"lowlevel_simclr_nt_xent_cuda_{name}")
        launcher.argtypes, launcher.restype = [pointer, *shape, *[pointer] * arrays], ctypes.c_char_p
    return library


def run(library: ctypes.CDLL, memory: Memory, case: Case, z: NDArray[Any]) -> Results:
    """Run the forward and the backward pass, with guard bytes around every array.

    Before each call, the workspace and the arrays for results are full of NaN.
    """
    total, (first, own) = 2 * case.pairs, case.own or (0, case.pairs)
    sums = np.dtype("float64" if case.dtype == "float64" else "float32")
    shape = (case.pairs, case.dim, own, CODES[case.dtype])
    workspace_bytes = library.lowlevel_simclr_nt_xent_cuda_workspace_bytes(*shape)
    z_buffer, tau = Buffer(memory, z), Buffer(memory, np.array([case.temperature]))
    first_pair = Buffer(memory, np.array([first], np.int64)) if case.own else None
    first_pointer = first_pair.pointer if first_pair else None
    of_own, of_all = 2 * own * sums.itemsize, total * sums.itemsize
    loss, normaliser, inverse_norm = (Buffer(memory, size) for size in (of_own, 2 * of_own, of_all))
    top1, workspace = Buffer(memory, 2 * own), Buffer(memory, workspace_bytes)
    outputs = [buffer.pointer for buffer in (workspace, loss, normaliser, inverse_norm, top1)]
    why = library.lowlevel_simclr_nt_xent_cuda_forward(
        memory.stream, *shape, z_buffer.pointer, tau.pointer, first_pointer, *outputs
    )
    assert why is None, why
    whole = case._replace(own=None)  # in training, each replica gets the normalisers of the others
    everywhere = normaliser if case.own is None else Buffer(memory, run(library, memory, whole, z).normaliser)
    weights, dz = Buffer(memory, cotangent(case).astype(sums)), Buffer(memory, 2 * own * case.dim * SIZES[case.dtype])
    slope, again = Buffer(memory, 8), Buffer(memory, workspace_bytes)
    arrays = [buffer.pointer for buffer in (z_buffer, everywhere, inverse_norm, weights, tau)]
    why = library.lowlevel_simclr_nt_xent_cuda_backward(
        memory.stream, *shape, *arrays, first_pointer, again.pointer, dz.pointer, slope.pointer
    )
    assert why is None, why
    for buffer in (workspace, again, z_buffer, tau, weights):
        buffer.read(np.uint8, (buffer.size,))
    stored = np.uint16 if case.dtype == "bfloat16" else np.dtype(case.dtype)
    return Results(
        loss.read(sums, (2 * own,)),
        normaliser.read(sums, (2 * own, 2)),
        inverse_norm.read(sums, (total,)),
        top1.read(np.bool_, (2 * own,)),
        dz.read(stored, (2 * own, case.dim)),
        slope.read(np.float64, ()),
    )


def stock(z: NDArray[Any], tau: float, c: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Compute losses (2N,), dz (2N, d) and the gradient to tau () by the usual formula, in the precision of z."""
    z, tau = z.astype(z.dtype), z.dtype.type(tau)
    largest = np.max(np.abs(z), axis=1, keepdims=True)
    unit = z / np.where(largest == 0, 1, largest)
    length = np.sqrt(np.sum(unit * unit, axis=1, keepdims=True))
    u = unit / np.where(length == 0, 1, length)
    own, partner = np.arange(len(u)), reference.find_positive(len(u))
    s = u @ u.T / tau
    s[own, own] = -np.inf
    most = np.max(s, axis=1)
    lse = most + np.log(np.sum(np.exp(s - most[:, None]), axis=1))
    loss = lse - s[own, partner]
    probability = np.exp(s - lse[:, None])
    slope = np.sum(c * (np.sum(probability * np.where(s == -np.inf, 0, s), axis=1) - s[own, partner])) / -tau
    weights = c[:, None] * probability
    weights = weights + weights.T
    weights[own, partner] -= c + c[partner]
    du = weights @ u / tau
    tangent = du - np.sum(du * u, axis=1, keepdims=True) * u
    full = largest * length
    return loss, np.where(full == 0, 0, tangent / np.where(full == 0, 1, full)), slope


def truth_of(case: Case, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], np.float64]:
    """Return the right losses (2N,), dz (2N, d) and gradient to tau ().

    The reference computes them in float64. For a launcher that computes in float64 too, this is not precise enough. So
    for float64 they are computed by the usual formula in long double, and the reference is only compared with them.
    """
    c, tau = cotangent(case), case.temperature
    found = (reference.nt_xent(z, tau), reference.nt_xent_gradient(z, tau, c))
    found += (reference.nt_xent_temperature_gradient(z, tau, c),)
    if case.dtype != "float64":
        return found
    exact = [np.asarray(part, np.float64) for part in stock(z.astype(np.longdouble), tau, c.astype(np.longdouble))]
    for mine, theirs in zip(found, exact):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
    return tuple(exact)


def check_against_reference(case: Case, z: NDArray[Any], found: Results) -> None:
    """Assert that every result is within the bound of verification/bound.py."""
    exact, c = widened(z, case.dtype), cotangent(case)
    own = reference.list_own_rows(len(exact), *(case.own or (0, case.pairs)))
    sums = np.float64 if case.dtype == "float64" else np.float32
    loss, dz, slope = stock(exact.astype(sums), case.temperature, c.astype(sums))
    rule: dict[str, Any] = {"dtype": case.dtype}
    true_loss, true_dz, true_slope = truth_of(case, exact)
    scale, of_rows = compute_loss_scale(case.temperature), compute_gradient_scale(exact, c, case.temperature)
    assert_close(found.loss, true_loss[own], loss[own], scale=scale, **rule)
    log_sum = found.normaliser[:, 0].astype(np.float64) / case.temperature + np.log(found.normaliser[:, 1], dtype=float)
    u = reference.normalise_rows(exact)
    positive = np.sum(u * u[reference.find_positive(len(u))], axis=1) / case.temperature
    beside = loss[own] + positive[own].astype(sums)
    assert_close(log_sum.astype(sums), (true_loss + positive)[own], beside, scale=2 * scale, **rule)
    dz_found = from_bfloat16(found.dz) if case.dtype == "bfloat16" else found.dz
    assert_close(dz_found, true_dz[own], dz[own], scale=of_rows[own], stored=case.dtype, **rule)
    if case.own is None:
        of_slope = compute_temperature_scale(c, case.temperature)
        assert_close(sums(found.dtemperature), true_slope, sums(slope), scale=of_slope, **rule)
    check_top1(exact, own, found.top1, case.dtype)


def check_top1(z: NDArray[np.float64], own: NDArray[np.intp], found: NDArray[np.bool_], dtype: str) -> None:
    """Assert that top1 is right, except for rows in which a rounding error may change it.

    If a row's positive and another candidate are equal, top1 must be false.
    """
    rows, partner = np.arange(len(z)), reference.find_positive(len(z))
    decided = find_decided_rows(z, find_accumulation_type(dtype))[own]
    assert np.array_equal(found[decided], (compute_margins(z) > 0)[own][decided])
    tied = np.array([any(np.array_equal(z[p], z[k]) for k in rows if k not in (i, p)) for i, p in zip(rows, partner)])
    assert not np.any(found[tied[own]]), "top1 is true although another candidate equals the positive"


def check_case(library: ctypes.CDLL, memory: Memory, case: Case) -> Results:
    """Run a case twice. Both must give the same bits, and these must agree with the reference."""
    z = projections(case)
    found, again = run(library, memory, case, z), run(library, memory, case, z)
    for name, first, second in zip(Results._fields, found, again):
        assert first.tobytes() == second.tobytes(), f"{name} has other bits in a second run"
    check_against_reference(case, z, found)
    return found
