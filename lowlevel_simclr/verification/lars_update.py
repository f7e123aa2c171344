"""What `check` asks of an update: the next weight and the next velocity of a variable.

Every case updates with `lars_update_all`, as training does, two variables beside one another, the second with the
numbers of the first in backward order; and with the float64 reference. Of both it asks for

    |ops - reference|  <=  8 eps scale

scale is the sum of the magnitudes of the terms that an element is made of, and what float has no digits below. An
element takes at most nine roundings, half an eps each: u two, the trust ratio two through u's norm, learning rate times
ratio one, its product with u one, momentum's product one, and one for each of the two sums.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowlevel_simclr.reference.lars_update import lars_update, trust_ratio

SLACK, EPSILON, SMALLEST_NORMAL = 8, 2.0**-23, 2.0**-126
CHOICES = {
    name: float(np.float32(number))  # as the ops have them
    for name, number in (
        ("learning_rate", 0.3),
        ("momentum", 0.9),
        ("weight_decay", 0.02),
        ("trust_coefficient", 0.01),
    )
}
Implementation = ModuleType | SimpleNamespace


class LarsCase(NamedTuple):
    """One variable, and the way it is updated."""

    rows: str  # what its numbers are like: update, zero w, zero g, huge, tiny
    shape: tuple[int, ...]
    mode: str = "eager"
    dtype: str = "float32"  # of the gradient; the rest is float32


def list_lars_cases(modes: Sequence[str] = ("eager", "graph")) -> Iterator[LarsCase]:
    """Every case of the update, for the given modes (eager, graph, xla)."""
    yield from (case for case in _all_lars_cases() if case.mode in modes)


def _all_lars_cases() -> Iterator[LarsCase]:
    for mode in ("eager", "graph", "xla"):
        for shape in ((), (1,), (70,), (1, 1), (5, 7), (3, 3, 16, 33), (300, 401)):
            yield LarsCase("update", shape, mode)
        for shape in ((70,), (3, 3, 16, 33), (300, 401)):
            yield LarsCase("update", shape, mode, "bfloat16")
        for rows in ("zero w", "zero g", "huge", "tiny"):
            yield LarsCase(rows, (61, 73), mode)


def make_numbers(case: LarsCase) -> list[NDArray[np.float32]]:
    """w, g and v of a case: the same on every machine."""
    random = np.random.default_rng(zlib.crc32(repr(case[:2]).encode()))
    scale = {"huge": 1e30, "tiny": 1e-30}.get(case.rows, 1.0)
    factors = (scale * (case.rows != "zero w"), scale * (case.rows != "zero g"), scale)
    arrays = [np.asarray(factor * random.normal(size=case.shape), np.float32) for factor in factors]
    arrays[1] = tf.cast(tf.cast(arrays[1], case.dtype), tf.float32).numpy()
    return arrays


def compute_scales(arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    """Magnitudes of the terms of w' and v', added."""
    wide = [np.asarray(array, np.float64) for array in arrays]
    weight, update, velocity = (np.abs(array) for array in wide)
    ratio = 1.0
    if weight.ndim > 1:
        decay = CHOICES["weight_decay"]
        ratio = trust_ratio(wide[0], wide[1] + decay * wide[0], CHOICES["trust_coefficient"])
        update = update + decay * weight
    moved = CHOICES["momentum"] * velocity + CHOICES["learning_rate"] * ratio * update + SMALLEST_NORMAL
    return [weight + moved, moved]


def judge_lars(case: LarsCase, implementation: Implementation) -> list[tuple[str, float, float]]:
    """Of w' and v': the name, the worst error and its bound, in units of scale."""
    arrays = make_numbers(case)

    def compute(*tensors: tf.Tensor) -> Any:
        results = implementation.lars_update_all(
            *([tensor, _compute_backward(tensor)] for tensor in tensors), **CHOICES
        )
        return [(first, _compute_backward(second)) for first, second in results]

    weight, gradient, velocity = map(tf.constant, arrays)
    results = _run_in_mode(case, compute)(weight, tf.cast(gradient, case.dtype), velocity)
    found = [np.stack([tensor.numpy().astype(np.float64) for tensor in both]) for both in results]
    expected = lars_update(*arrays, **CHOICES)
    errors = (np.abs(a - b) / scale for a, b, scale in zip(found, expected, compute_scales(arrays)))
    return [(name, _find_worst(error), SLACK * EPSILON) for name, error in zip(("weight", "velocity"), errors)]


def _compute_backward(tensor: tf.Tensor) -> tf.Tensor:
    """The same shape, its elements in the opposite order."""
    return tf.reshape(tf.reverse(tf.reshape(tensor, [-1]), [0]), tf.shape(tensor))


def _run_in_mode(case: LarsCase, compute: Callable[..., Any]) -> Callable[..., Any]:
    if case.mode == "eager":
        return compute
    if case.mode == "xla":
        return tf.function(compute, jit_compile=True)
    kinds = (tf.float32, case.dtype, tf.float32)
    return tf.function(compute, input_signature=[tf.TensorSpec([None] * len(case.shape), kind) for kind in kinds])


def _find_worst(error: NDArray[np.float64]) -> float:
    """The largest; infinity where one is no number."""
    return float(np.max(np.where(np.isnan(error), np.inf, error)))
