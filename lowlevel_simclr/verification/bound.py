"""The bound that every error is held against, and what a comparison found."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

FACTOR, SLACK = 2, 8
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
OpsModule = ModuleType | SimpleNamespace


class Finding(NamedTuple):
    """One quantity of one case: its worst error and the bound there, in units of scale."""

    case: Any  # a NamedTuple of the op's own, with `rows`, `dtype` and `mode`
    quantity: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound; NaN is not."""
        return self.error <= self.bound


def make_finding(case: Any, name: str, found: Any, truth: Any, plain: Any, scale: Any, accumulation: str) -> Finding:
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
