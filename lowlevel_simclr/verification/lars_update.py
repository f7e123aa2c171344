"""The test problems (cases) of the LARS update, which computes the next weight and velocity of a variable.

Every case updates two variables at once with `lars_update_all`, as training does. The second variable has the numbers
of the first in reverse order. All results must be within the bound of `verification.bound`, with E = 0. This means that
the errors of TensorFlow's own formula (stock) do not widen the bound:

    |ops - reference|  <=  8 eps scale

eps is the spacing of float32 at 1. An element is a sum of terms. scale is the sum of their magnitudes, plus float32's
smallest normal number. The bound allows 16 roundings of eps/2. The computation of an element rounds at most nine times:
twice for u, twice for the trust ratio (because of the norm of u), once for each of three products (learning rate times
ratio, this times u, momentum times velocity), and once for each of the two sums.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr.reference.lars_update import compute_trust_ratio, lars_update
from lowlevel_simclr.verification.bound import SMALLEST_NORMAL, Finding, compare_with_reference
from lowlevel_simclr.verification.mode import MODES, build_for_mode

CHOICES = {
    name: float(np.float32(number))  # the ops take float32
    for name, number in (
        ("learning_rate", 0.3),
        ("momentum", 0.9),
        ("weight_decay", 0.02),
        ("trust_coefficient", 0.01),
    )
}

# Kinds of numbers whose squares are too large or too small for float32. The stock formula cannot handle them, because
# it computes norms in float32.
BEYOND_STOCK = ("huge", "tiny")


class LarsCase(NamedTuple):
    """A variable to update, and the mode in which TensorFlow runs the update."""

    rows: str  # the kind of its numbers: update, zero w, zero g, huge, tiny
    shape: tuple[int, ...]
    mode: str = "eager"
    dtype: str = "float32"  # type of the gradient; weight and velocity are float32


class LarsOps(Protocol):
    """An implementation of LARS: the package `ops`, the package `stock`, or any object with the same function."""

    def lars_update_all(
        self,
        weights: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        velocities: Sequence[tf.Tensor],
        /,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        trust_coefficient: float,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return the next weights and the next velocities."""


def list_lars_cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[LarsCase]:
    """Yield the cases of the update for the given modes (eager, graph, xla)."""
    yield from (case for case in _list_all_cases() if case.mode in modes)


def _list_all_cases() -> Iterator[LarsCase]:
    for mode in MODES:
        for shape in ((), (1,), (70,), (1, 1), (5, 7), (3, 3, 16, 33), (300, 401)):
            yield LarsCase("update", shape, mode)
        for shape in ((70,), (3, 3, 16, 33), (300, 401)):
            yield LarsCase("update", shape, mode, "bfloat16")
        for rows in ("zero w", "zero g", "huge", "tiny"):
            yield LarsCase(rows, (61, 73), mode)


def make_numbers(case: LarsCase) -> list[NDArray[np.float32]]:
    """Return w, g and v of a case. The numbers are the same on every machine."""
    random = np.random.default_rng(zlib.crc32(repr(case[:2]).encode()))
    scale = {"huge": 1e30, "tiny": 1e-30}.get(case.rows, 1.0)
    factors = (scale * (case.rows != "zero w"), scale * (case.rows != "zero g"), scale)
    arrays = [np.asarray(factor * random.normal(size=case.shape), np.float32) for factor in factors]
    arrays[1] = tf.cast(tf.cast(arrays[1], case.dtype), tf.float32).numpy()
    return arrays


def compute_scales(arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    """Return the scales of the next weight and the next velocity: the sums of the magnitudes of their terms."""
    wide = [np.asarray(array, np.float64) for array in arrays]
    weight, update, velocity = (np.abs(array) for array in wide)
    ratio = 1.0
    if weight.ndim > 1:
        decay = CHOICES["weight_decay"]
        ratio = compute_trust_ratio(wide[0], wide[1] + decay * wide[0], CHOICES["trust_coefficient"])
        update = update + decay * weight
    moved = CHOICES["momentum"] * velocity + CHOICES["learning_rate"] * ratio * update + SMALLEST_NORMAL["float32"]
    return [weight + moved, moved]


def judge_lars(case: LarsCase, implementation: LarsOps) -> list[Finding]:
    """Compare the next weight and the next velocity of one case with their bounds."""
    arrays = make_numbers(case)

    def compute(*tensors: tf.Tensor) -> list[list[tf.Tensor]]:
        results = implementation.lars_update_all(
            *([tensor, _reverse_elements(tensor)] for tensor in tensors), **CHOICES
        )
        return [[first, _reverse_elements(second)] for first, second in results]

    kinds = ("float32", case.dtype, "float32")
    signature = [tf.TensorSpec([None] * len(case.shape), kind) for kind in kinds]
    tensors = [tf.cast(array, kind) for array, kind in zip(arrays, kinds)]
    results = build_for_mode(compute, case.mode, signature)(*tensors)
    findings = []
    for name, both, right, scale in zip(
        ("weight", "velocity"), results, lars_update(*arrays, **CHOICES), compute_scales(arrays)
    ):
        found, expected = np.stack([tensor.numpy() for tensor in both]), np.stack([right, right])
        worst = compare_with_reference(found, expected, None, scale=scale, accumulation="float32")
        findings.append(Finding(case, name, worst.error, worst.bound))
    return findings


def _reverse_elements(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor of the same shape with its elements in the opposite order."""
    return tf.reshape(tf.reverse(tf.reshape(tensor, [-1]), [0]), tf.shape(tensor))
