"""The test problems (cases) of the NT-Xent loss.

Each case compares the losses, their gradients with respect to z and the temperature, and the contrastive top-1 with the
float64 reference. The errors must be within the bound of `verification.bound`. One part of that bound is the error of
the stock formula (the same computation with TensorFlow's own ops) in the same precision.

A row of z is one view. Its positive is the other view of the same image, and all other rows are its candidates. The
margin of a row is the similarity of its positive minus that of its best other candidate. If rounding cannot change the
sign of the margin, top1 must be exact.

The cases cover four types, temperatures from 0.001 to 10, odd N, N = 1, d = 1, several tiles (blocks of similarities
that a kernel computes at once), duplicated rows, zero rows, norms from 1e-15 to 1e15, loss scales up to 2^15, and the
own rows of one replica. They run eagerly, in graphs that do not know N, and under XLA.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr import reference, stock
from lowlevel_simclr.verification.bound import (
    Finding,
    compare_with_reference,
    compute_gradient_scale,
    compute_loss_scale,
    compute_temperature_scale,
    find_accumulation_type,
    find_decided_rows,
)
from lowlevel_simclr.verification.mode import MODES, build_for_mode

TYPES = ("float32", "float64", "bfloat16", "float16")
TEMPERATURES = (0.001, 0.005, 0.01, 0.03, 0.1, 0.5, 10.0)


class NtXentCase(NamedTuple):
    """One test problem, and the mode in which TensorFlow runs it."""

    rows: str  # the kind of the rows: random, duplicates, zeros, huge, tiny, near
    pairs: int
    dim: int
    dtype: str = "float32"
    temperature: float = 0.1
    mode: str = "eager"
    loss_scale: float = 1.0
    own: tuple[int, int] | None = None  # first_pair, pairs of a replica


class Results(NamedTuple):
    """The results of one implementation. n of the N pairs belong to the replica that is tested."""

    loss: NDArray[Any]  # (2n,)
    dz: NDArray[Any]  # (2N, d)
    dtemperature: NDArray[Any]  # (), the gradient with respect to the temperature
    top1: NDArray[np.bool_]  # (2N,)


class NtXentOps(Protocol):
    """An implementation of NT-Xent: the package `ops`, the package `stock`, or any object with the same functions."""

    def nt_xent(self, z: tf.Tensor, temperature: tf.Tensor, /) -> tf.Tensor:
        """Return the losses, (2N,)."""

    def nt_xent_rows(self, z: tf.Tensor, first_pair: int, pairs: int, temperature: tf.Tensor, /) -> tf.Tensor:
        """Return the losses of a replica's own rows, (2n,)."""

    def contrastive_top1(self, z: tf.Tensor, /) -> tf.Tensor:
        """Return whether the positive is the most similar candidate, (2N,)."""


# ---- Cases ----------------------------------------------------------------------------------------------------------


def list_nt_xent_cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[NtXentCase]:
    """Yield the cases of NT-Xent for the given modes (eager, graph, xla)."""
    yield from (case for case in _list_all_cases() if case.mode in modes)


def _list_all_cases() -> Iterator[NtXentCase]:
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
        for mode in MODES[1:]:
            yield NtXentCase("random", 51, 20, dtype, mode=mode)
    for mode in MODES[1:]:
        yield NtXentCase("random", 100, 64, temperature=0.01, mode=mode)
        yield NtXentCase("zeros", 9, 5, temperature=0.5, mode=mode)
        yield NtXentCase("random", 40, 24, mode=mode, own=(13, 20))


def make_projections(case: NtXentCase) -> NDArray[Any]:
    """Return z of a case, (2N, d). The numbers are the same on every machine."""
    random = np.random.default_rng(zlib.crc32(repr(case[:5]).encode()))
    z = random.normal(size=(2 * case.pairs, case.dim))
    z[case.pairs :] += 1.5 * z[: case.pairs]  # makes each positive resemble its row
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
    """Return the weights of the losses, (2n,). They have both signs and are exact in float32."""
    count = 2 * (case.own[1] if case.own else case.pairs)
    return case.loss_scale * (np.arange(count) * 7 % 16 - 7.5) / 8


# ---- Running --------------------------------------------------------------------------------------------------------


def run_case(case: NtXentCase, implementation: NtXentOps, z: NDArray[Any]) -> Results:
    """Return the losses, gradients and top1 of one implementation in the case's mode."""
    dtype = "float64" if case.dtype == "float64" else "float32"
    weights, tau = tf.constant(make_cotangent(case), dtype), tf.constant(case.temperature, tf.float64)

    def compute(z: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch([z, tau])
            if case.own is None:
                loss = implementation.nt_xent(z, tau)
            else:
                loss = implementation.nt_xent_rows(z, *case.own, tau)
        dz, dtau = tape.gradient(loss, [z, tau], output_gradients=weights)
        return loss, dz, dtau, implementation.contrastive_top1(z)

    signature = [tf.TensorSpec([None, case.dim], case.dtype)]
    return Results(*(tensor.numpy() for tensor in build_for_mode(compute, case.mode, signature)(tf.constant(z))))


def compute_expected(case: NtXentCase, z: NDArray[Any]) -> Results:
    """Return the results of the float64 reference."""
    z, own = z.astype(np.float64), case.own or (0, case.pairs)
    weights = np.zeros(len(z))
    weights[reference.list_own_rows(len(z), *own)] = make_cotangent(case)
    return Results(
        reference.nt_xent_rows(z, *own, case.temperature),
        reference.nt_xent_gradient(z, case.temperature, weights),
        np.asarray(reference.nt_xent_temperature_gradient(z, case.temperature, weights)),
        reference.contrastive_top1(z),
    )


# ---- Judging --------------------------------------------------------------------------------------------------------


def judge_nt_xent(case: NtXentCase, implementation: NtXentOps) -> list[Finding]:
    """Compare all quantities of one case with their bounds.

    The error of the stock formula (E in `verification.bound`) normally widens the bound. When the stock formula itself
    is judged, it must not do so. Then E is 0, and `compute_scales` returns larger scales.
    """
    z = make_projections(case)
    truth, found = compute_expected(case, z), run_case(case, implementation, z)
    accumulation, is_stock = find_accumulation_type(case.dtype), implementation is stock
    plain = None if is_stock else run_case(case._replace(mode="eager"), stock, z.astype(accumulation))
    findings = []
    for name, scale in compute_scales(case, z, conditioned=is_stock).items():
        result, expected = getattr(found, name), getattr(truth, name)
        beside = None if plain is None else getattr(plain, name)
        worst = compare_with_reference(result, expected, beside, scale=scale, accumulation=accumulation)
        findings.append(Finding(case, name, worst.error, worst.bound))
    wrong = np.mean((found.top1 != truth.top1) & find_decided_rows(z, accumulation))
    return [*findings, Finding(case, "top1", float(wrong), 0.0)]


def compute_scales(
    case: NtXentCase, z: NDArray[Any], conditioned: bool = False
) -> dict[str, NDArray[np.float64] | float]:
    """Return the scales of the loss and of both gradients (see `verification.bound`).

    Args:
        case: the problem.
        z: the projections of the problem, (2N, d).
        conditioned: whether to enlarge the scales. Larger scales allow for the change of the weights exp(s - lse) if a
            similarity has an error of eps/tau. For float64 they are also doubled, because the reference is rounded too.
            Pass True if there is no stock result to compare with.
    """
    cotangent = make_cotangent(case)
    factor = 2.0 if conditioned and case.dtype == "float64" else 1.0
    of_weights = 1 + 1 / case.temperature if conditioned else 1.0
    return {
        "loss": factor * compute_loss_scale(case.temperature),
        "dz": factor * of_weights * compute_gradient_scale(z, cotangent, case.temperature),
        "dtemperature": factor * compute_temperature_scale(cotangent, case.temperature),
    }
