"""Proves the installed ops on this very machine: python -m lowlevel_simclr.check.

Every case computes losses and gradients with the ops, with the stock formula in the same precision and with the float64
reference, and asks for

    |ops - reference|  <=  2 E + 8 eps scale   (+ half a spacing of the result's own type)

E is the stock formula's worst error over the case in units of scale; scale is 1 + 1/tau for a loss,
max|c| / (tau |z_i|) for a row of dz, and sum|c| / tau^2 (1 + 1/tau) for the gradient to the temperature. So the ops are
at most twice as wrong as the plain formula, plus a few roundings. top1 must be exact wherever the reference's margin
exceeds rounding.

Cases: four types, temperatures from 0.001 to 10, odd N, N = 1, d = 1, several tiles, duplicated and zero rows, norms
from 1e-15 to 1e15, loss scales up to 2^15, own rows of a replica; eagerly, in graphs of unknown batch, and under
jit_compile where the XLA route works; on the CPU and on every GPU (there through XLA alone). The views and their
parameters are asked the same in `view_cases`, the update of LARS in `lars_cases`. Exit code 0 when all hold, else 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr import reference, stock
from lowlevel_simclr.verification.bound import EPSILON, Finding, OpsModule, make_finding

TYPES = ("float32", "float64", "bfloat16", "float16")
TEMPERATURES = (0.001, 0.005, 0.01, 0.03, 0.1, 0.5, 10.0)


class NtXentCase(NamedTuple):
    """One problem, and the way it is run."""

    rows: str  # what the rows are like: random, duplicates, zeros, huge, tiny, near
    pairs: int
    dim: int
    dtype: str = "float32"
    temperature: float = 0.1
    mode: str = "eager"
    loss_scale: float = 1.0
    own: tuple[int, int] | None = None  # first_pair, pairs of a replica


class Results(NamedTuple):
    """Loss (2n,), dz (2N, d), gradient to the temperature () and top1 (2N,)."""

    loss: Any
    dz: Any
    dtemperature: Any
    top1: Any


# ---- Cases ----------------------------------------------------------------------------------------------------------


def list_nt_xent_cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[NtXentCase]:
    """Every case of the check, for the given modes (eager, graph, xla)."""
    yield from (case for case in _all_cases() if case.mode in modes)


def _all_cases() -> Iterator[NtXentCase]:
    for dtype in TYPES:
        for temperature in TEMPERATURES:
            yield NtXentCase("random", 37, 20, dtype, temperature)
    for pairs, dim in ((1, 1), (1, 128), (2, 3), (3, 1), (48, 16), (49, 33), (97, 64), (150, 128), (200, 7)):
        yield NtXentCase("random", pairs, dim)
        yield NtXentCase("random", pairs, dim, temperature=0.005)
    for rows in ("duplicates", "zeros", "huge", "tiny", "near"):
        for temperature in (0.01, 0.1, 1.0):
            yield NtXentCase(rows, 33, 24, temperature=temperature)
        yield NtXentCase(rows, 9, 24, "float64")
    for scale in (2.0**15, 2.0**-20):
        for temperature in (0.005, 0.07):
            yield NtXentCase("random", 33, 24, temperature=temperature, loss_scale=scale)
    for own in ((0, 40), (0, 1), (13, 20), (39, 1)):
        yield NtXentCase("random", 40, 24, own=own)
        yield NtXentCase("random", 40, 24, temperature=0.01, own=own)
    for dtype in TYPES:
        yield NtXentCase("random", 51, 20, dtype, mode="graph")
        yield NtXentCase("random", 51, 20, dtype, mode="xla")
    for mode in ("graph", "xla"):
        yield NtXentCase("random", 100, 64, temperature=0.01, mode=mode)
        yield NtXentCase("zeros", 9, 5, temperature=0.5, mode=mode)
        yield NtXentCase("random", 40, 24, mode=mode, own=(13, 20))


def make_projections(case: NtXentCase) -> NDArray[Any]:
    """Z of a case, (2N, d): the same numbers on every machine."""
    random = np.random.default_rng(zlib.crc32(repr(case[:5]).encode()))
    z = random.normal(size=(2 * case.pairs, case.dim))
    z[case.pairs :] += 1.5 * z[: case.pairs]  # a positive resembles its row
    if case.rows == "duplicates":
        z[:] = z[random.integers(0, min(5, len(z)), len(z))]
    if case.rows == "zeros":
        z[random.choice(len(z), len(z) // 3, replace=False)] = 0
    if case.rows == "huge":
        z *= 10.0 ** random.uniform(0, 15, (len(z), 1))
    if case.rows == "tiny":
        z *= 10.0 ** random.uniform(-15, 0, (len(z), 1))
    if case.rows == "near":
        z = z[:1] + 1e-3 * z
    return tf.cast(tf.constant(z), case.dtype).numpy()


def make_cotangent(case: NtXentCase) -> NDArray[np.float64]:
    """Weights of the losses, both signs, exact in float32: (2n,)."""
    count = 2 * (case.own[1] if case.own else case.pairs)
    return case.loss_scale * (np.arange(count) * 7 % 16 - 7.5) / 8


# ---- Running --------------------------------------------------------------------------------------------------------


def run_case(case: NtXentCase, implementation: OpsModule, z: NDArray[Any]) -> Results:
    """Losses, gradients and top1 of one implementation in the case's mode."""
    dtype = "float64" if case.dtype == "float64" else "float32"
    weights, tau = tf.constant(make_cotangent(case), dtype), tf.constant(case.temperature, tf.float64)

    def compute(z: tf.Tensor) -> Results:
        with tf.GradientTape() as tape:
            tape.watch([z, tau])
            if case.own is None:
                loss = implementation.nt_xent(z, tau)
            else:
                loss = implementation.nt_xent_rows(z, *case.own, tau)
        dz, dtau = tape.gradient(loss, [z, tau], output_gradients=weights)
        return Results(loss, dz, dtau, implementation.contrastive_top1(z))

    return Results(*(tensor.numpy() for tensor in _run_in_mode(case, compute)(tf.constant(z))))


def _run_in_mode(case: NtXentCase, compute: Callable[[tf.Tensor], Results]) -> Callable[[tf.Tensor], Results]:
    if case.mode == "eager":
        return compute
    if case.mode == "xla":
        return tf.function(compute, jit_compile=True)
    return tf.function(compute, input_signature=[tf.TensorSpec([None, case.dim], case.dtype)])


def compute_expected(case: NtXentCase, z: NDArray[Any]) -> Results:
    """The float64 reference."""
    z, own = z.astype(np.float64), case.own or (0, case.pairs)
    weights = np.zeros(len(z))
    weights[reference.own_rows(len(z), *own)] = make_cotangent(case)
    return Results(
        reference.nt_xent_rows(z, *own, case.temperature),
        reference.nt_xent_gradient(z, case.temperature, weights),
        reference.nt_xent_temperature_gradient(z, case.temperature, weights),
        reference.contrastive_top1(z),
    )


# ---- Judging --------------------------------------------------------------------------------------------------------


def judge_nt_xent(case: NtXentCase, implementation: OpsModule) -> list[Finding]:
    """All quantities of one case, measured against their bounds."""
    z = make_projections(case)
    truth, found = compute_expected(case, z), run_case(case, implementation, z)
    accumulation = "float64" if case.dtype == "float64" else "float32"
    plain = run_case(case._replace(mode="eager"), stock, z.astype(accumulation))
    scales = _compute_scales(case, z)
    findings = [
        make_finding(case, name, getattr(found, name), getattr(truth, name), getattr(plain, name), scale, accumulation)
        for name, scale in scales.items()
    ]
    decided = np.abs(_compute_margins(z)) > 64 * EPSILON[accumulation]
    misses = np.mean((found.top1 != truth.top1) & decided) if case.pairs else 0.0
    return [*findings, Finding(case, "top1", float(misses), 0.0)]


def _compute_scales(case: NtXentCase, z: NDArray[Any]) -> dict[str, NDArray[np.float64] | float]:
    length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    weights, inverse_tau = np.abs(make_cotangent(case)), 1 / case.temperature
    return {
        "loss": 1 + inverse_tau,
        "dz": np.max(weights) * inverse_tau * inverse,
        "dtemperature": float(np.sum(weights)) * inverse_tau**2 * (1 + inverse_tau),
    }


def _compute_margins(z: NDArray[Any]) -> NDArray[np.float64]:
    """How much more similar than every other candidate the positive is, (2N,); infinite for N = 1."""
    u = reference.unit_rows(z)
    s = u @ u.T
    own, partner = np.arange(len(u)), reference.positive(len(u))
    of_positive = s[own, partner]
    s[own, own] = s[own, partner] = -np.inf
    return of_positive - np.max(s, axis=1)
