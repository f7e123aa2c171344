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

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr import reference, stock
from lowlevel_simclr.lars_cases import LarsCase, judge_lars, lars_cases
from lowlevel_simclr.view_cases import ViewCase, judge_views, view_cases

FACTOR, SLACK = 2, 8
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
TYPES = ("float32", "float64", "bfloat16", "float16")
TEMPERATURES = (0.001, 0.005, 0.01, 0.03, 0.1, 0.5, 10.0)
Implementation = ModuleType | SimpleNamespace


class Case(NamedTuple):
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


class Finding(NamedTuple):
    """One quantity of one case: its worst error and the bound there, in units of scale."""

    case: Case | ViewCase | LarsCase
    quantity: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound; NaN is not."""
        return self.error <= self.bound


# ---- Cases ----------------------------------------------------------------------------------------------------------


def cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[Case]:
    """Every case of the check, for the given modes (eager, graph, xla)."""
    yield from (case for case in _all_cases() if case.mode in modes)


def _all_cases() -> Iterator[Case]:
    for dtype in TYPES:
        for temperature in TEMPERATURES:
            yield Case("random", 37, 20, dtype, temperature)
    for pairs, dim in ((1, 1), (1, 128), (2, 3), (3, 1), (48, 16), (49, 33), (97, 64), (150, 128), (200, 7)):
        yield Case("random", pairs, dim)
        yield Case("random", pairs, dim, temperature=0.005)
    for rows in ("duplicates", "zeros", "huge", "tiny", "near"):
        for temperature in (0.01, 0.1, 1.0):
            yield Case(rows, 33, 24, temperature=temperature)
        yield Case(rows, 9, 24, "float64")
    for scale in (2.0**15, 2.0**-20):
        for temperature in (0.005, 0.07):
            yield Case("random", 33, 24, temperature=temperature, loss_scale=scale)
    for own in ((0, 40), (0, 1), (13, 20), (39, 1)):
        yield Case("random", 40, 24, own=own)
        yield Case("random", 40, 24, temperature=0.01, own=own)
    for dtype in TYPES:
        yield Case("random", 51, 20, dtype, mode="graph")
        yield Case("random", 51, 20, dtype, mode="xla")
    for mode in ("graph", "xla"):
        yield Case("random", 100, 64, temperature=0.01, mode=mode)
        yield Case("zeros", 9, 5, temperature=0.5, mode=mode)
        yield Case("random", 40, 24, mode=mode, own=(13, 20))


def projections(case: Case) -> NDArray[Any]:
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


def cotangent(case: Case) -> NDArray[np.float64]:
    """Weights of the losses, both signs, exact in float32: (2n,)."""
    count = 2 * (case.own[1] if case.own else case.pairs)
    return case.loss_scale * (np.arange(count) * 7 % 16 - 7.5) / 8


# ---- Running --------------------------------------------------------------------------------------------------------


def run(case: Case, implementation: Implementation, z: NDArray[Any]) -> Results:
    """Losses, gradients and top1 of one implementation in the case's mode."""
    dtype = "float64" if case.dtype == "float64" else "float32"
    weights, tau = tf.constant(cotangent(case), dtype), tf.constant(case.temperature, tf.float64)

    def compute(z: tf.Tensor) -> Results:
        with tf.GradientTape() as tape:
            tape.watch([z, tau])
            if case.own is None:
                loss = implementation.nt_xent(z, tau)
            else:
                loss = implementation.nt_xent_rows(z, *case.own, tau)
        dz, dtau = tape.gradient(loss, [z, tau], output_gradients=weights)
        return Results(loss, dz, dtau, implementation.contrastive_top1(z))

    return Results(*(tensor.numpy() for tensor in _in_mode(case, compute)(tf.constant(z))))


def _in_mode(case: Case, compute: Callable[[tf.Tensor], Results]) -> Callable[[tf.Tensor], Results]:
    if case.mode == "eager":
        return compute
    if case.mode == "xla":
        return tf.function(compute, jit_compile=True)
    return tf.function(compute, input_signature=[tf.TensorSpec([None, case.dim], case.dtype)])


def expected(case: Case, z: NDArray[Any]) -> Results:
    """The float64 reference."""
    z, own = z.astype(np.float64), case.own or (0, case.pairs)
    weights = np.zeros(len(z))
    weights[reference.own_rows(len(z), *own)] = cotangent(case)
    return Results(
        reference.nt_xent_rows(z, *own, case.temperature),
        reference.nt_xent_gradient(z, case.temperature, weights),
        reference.nt_xent_temperature_gradient(z, case.temperature, weights),
        reference.contrastive_top1(z),
    )


# ---- Judging --------------------------------------------------------------------------------------------------------


def judge(case: Case, implementation: Implementation) -> list[Finding]:
    """All quantities of one case, measured against their bounds."""
    z = projections(case)
    truth, found = expected(case, z), run(case, implementation, z)
    accumulation = "float64" if case.dtype == "float64" else "float32"
    plain = run(case._replace(mode="eager"), stock, z.astype(accumulation))
    scales = _scales(case, z)
    findings = [
        _finding(case, name, getattr(found, name), getattr(truth, name), getattr(plain, name), scale, accumulation)
        for name, scale in scales.items()
    ]
    decided = np.abs(_margins(z)) > 64 * EPSILON[accumulation]
    misses = np.mean((found.top1 != truth.top1) & decided) if case.pairs else 0.0
    return [*findings, Finding(case, "top1", float(misses), 0.0)]


def _scales(case: Case, z: NDArray[Any]) -> dict[str, NDArray[np.float64] | float]:
    length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    weights, inverse_tau = np.abs(cotangent(case)), 1 / case.temperature
    return {
        "loss": 1 + inverse_tau,
        "dz": np.max(weights) * inverse_tau * inverse,
        "dtemperature": float(np.sum(weights)) * inverse_tau**2 * (1 + inverse_tau),
    }


def _finding(case: Case, name: str, found: Any, truth: Any, plain: Any, scale: Any, accumulation: str) -> Finding:
    """The element that uses most of its bound."""
    stored = np.asarray(found).dtype.name
    found, plain = np.asarray(found, np.float64), np.asarray(plain, np.float64)
    scale = np.broadcast_to(np.asarray(scale, np.float64), np.shape(truth))
    counts = scale > 0
    unit = np.where(counts, scale, 1.0)
    worst = float(np.max(np.abs(plain - truth)[counts] / unit[counts], initial=0.0))
    bound = np.where(counts, FACTOR * worst + SLACK * EPSILON[accumulation], 0.0)
    if stored in ("float16", "bfloat16"):
        reach = np.maximum(np.abs(truth), SMALLEST_NORMAL[stored])
        bound = bound + np.where(counts, EPSILON[stored] / 2 * (reach / unit + bound), 0.0)
    error = np.abs(found - truth) / unit
    error = np.where(np.isnan(error), np.inf, error)
    used = np.where(error == 0, 0.0, error / np.maximum(bound, np.finfo(np.float64).tiny))
    at = np.unravel_index(int(np.argmax(used)), used.shape)
    return Finding(case, name, float(error[at]), float(bound[at]))


def _margins(z: NDArray[Any]) -> NDArray[np.float64]:
    """How much more similar than every other candidate the positive is, (2N,); infinite for N = 1."""
    u = reference.unit_rows(z)
    s = u @ u.T
    own, partner = np.arange(len(u)), reference.positive(len(u))
    of_positive = s[own, partner]
    s[own, own] = s[own, partner] = -np.inf
    return of_positive - np.max(s, axis=1)


def check(implementation: Implementation, modes: Sequence[str] = ("eager", "graph")) -> list[Finding]:
    """Every case in the given modes; an implementation is right when all findings hold."""
    findings = [finding for case in cases(modes) for finding in judge(case, implementation)]
    measured = ((case, found) for case in view_cases(modes) for found in judge_views(case, implementation))
    findings += [Finding(case, *found) for case, found in measured]
    updated = ((case, found) for case in lars_cases(modes) for found in judge_lars(case, implementation))
    return findings + [Finding(case, *found) for case, found in updated]


# ---- Reporting ------------------------------------------------------------------------------------------------------


def table(findings: Sequence[Finding]) -> str:
    """For each group of cases and quantity, the finding that uses most of its bound; then every one that fails."""
    lines = [
        f"{'rows':<11}{'type':<10}{'mode':<7}{'quantity':<14}{'cases':>5}  {'error':>9}  {'bound':>9}  {'used':>6}"
    ]
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        case = finding.case
        groups.setdefault((case.rows, case.dtype, case.mode, finding.quantity), []).append(finding)
    for (rows, dtype, mode, quantity), group in sorted(groups.items()):
        worst = max(group, key=_used)
        lines.append(
            f"{rows:<11}{dtype:<10}{mode:<7}{quantity:<14}{len(group):>5}  {worst.error:>9.2e}  {worst.bound:>9.2e}  "
            f"{_used(worst):>6.0%}"
        )
    lines += [f"FAILS: {finding.quantity} of {finding.case}" for finding in findings if not finding.holds]
    return "\n".join(lines)


def _used(finding: Finding) -> float:
    if finding.error == 0:
        return 0.0
    return min(finding.error / finding.bound, 1e6) if finding.bound > 0 else 1e6


def _devices(why_not: str | None, has_cuda: bool) -> Iterator[tuple[str, Sequence[str]]]:
    """Devices to check and the modes there; a GPU takes XLA's custom call in every mode, which needs a known batch."""
    yield "/CPU:0", ("eager", "graph") if why_not else ("eager", "graph", "xla")
    for number, device in enumerate(tf.config.list_logical_devices("GPU")):
        if why_not or not has_cuda:
            print(f"{device.name}: not checked, {why_not or 'the library was built without CUDA kernels'}")
            continue
        tf.config.experimental.enable_tensor_float_32_execution(False)  # the stock formula must not have its errors
        yield f"/GPU:{number}", ("eager", "xla")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the native ops here. Returns the exit code: 0 when every finding holds, else 1."""
    parser = argparse.ArgumentParser(prog="python -m lowlevel_simclr.check", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    started = time.perf_counter()
    from lowlevel_simclr import ops
    from lowlevel_simclr.ops import _library, _route

    print(f"TensorFlow {tf.__version__}, {_library.instruction_set()}, {_library.threads()} threads")
    print(f"library: {_library.build_information()}")
    why_not = _route.closed()
    print(f"jit_compile: {why_not or 'yes'}")
    findings = []
    for device, modes in _devices(why_not, bool(_library.build_information()["cuda"])):
        with tf.device(device):
            of_device = check(ops, modes)
        print(f"{device}, {', '.join(modes)}\n{table(of_device)}")
        findings += of_device
    failed = sum(not finding.holds for finding in findings)
    seconds = time.perf_counter() - started
    print(f"{len(findings)} findings, {failed} fail, {seconds:.0f} s; errors are in units of scale")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
