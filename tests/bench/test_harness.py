"""Tests the code with which benchmarks time several functions (alternatives), if these give equal results."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from bench import ceiling, harness


def alternatives(other: np.ndarray, own_numbers: bool) -> list[harness.Alternative]:
    first = harness.Alternative("first", lambda: lambda: [np.array([[0.0, 0.5], [1.0, 0.25]])])
    return [first, harness.Alternative("other", lambda: lambda: [other], own_numbers)]


def compared(other: np.ndarray, own_numbers: bool) -> list[harness.Row]:
    return harness.time_alternatives({}, alternatives(other, own_numbers), operations=0, seconds=0, tolerance=1e-3)


def test_what_agrees_is_timed() -> None:
    rows = compared(np.array([[0.0, 0.5], [1.0, 0.2501]]), False)
    assert all(row.repeats >= 5 and row.minimum is not None and not row.note for row in rows)


def test_what_differs_is_refused() -> None:
    with pytest.raises(harness.Disagreement, match="first and other differ"):
        compared(np.array([[0.0, 0.5], [1.0, 0.26]]), False)


def test_of_numbers_drawn_apart_shape_and_range_are_compared() -> None:
    rows = compared(np.array([[0.9, 0.1], [0.3, 0.7]]), True)
    assert rows[1].repeats >= 5 and "shape and range" in rows[1].note
    for other in (np.array([[0.9, 1.1], [0.3, 0.7]]), np.array([[0.9, -0.1], [0.3, 0.7]]), np.array([0.5, 0.5])):
        with pytest.raises(harness.Disagreement, match="first and other"):
            compared(other, True)


def test_one_without_memory_is_a_row_that_says_so() -> None:
    def prepare() -> harness.Call:
        raise MemoryError

    first = alternatives(np.zeros(1), False)[0]
    rows = harness.time_alternatives(
        {}, [first, harness.Alternative("large", prepare)], operations=0, seconds=0, tolerance=0
    )
    assert [row.note for row in rows] == ["", "out of memory"] and rows[0].repeats and not rows[1].repeats


def test_calls_that_go_on_from_the_one_before_are_compared_after_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test functions whose result changes from call to call.

    A slow alternative gets fewer calls before it is timed than a fast one. So the results of the first calls must be
    compared, and not the latest results.
    """
    monkeypatch.setattr(harness, "LONG_CALL", 0.05)

    def counting(first_takes: float) -> Callable[[], list[np.ndarray]]:
        made = [0]

        def call() -> list[np.ndarray]:
            made[0] += 1
            time.sleep(first_takes if made[0] == 1 else 0)
            return [np.array([float(made[0])])]

        return call

    both = [harness.Alternative("quick", lambda: counting(0)), harness.Alternative("slow", lambda: counting(0.06))]
    assert all(row.repeats for row in harness.time_alternatives({}, both, operations=0, seconds=0, tolerance=0))


def test_the_ceiling_is_the_fastest_product() -> None:
    """Test that an alternative's speed is divided by that of the fastest of several matrix products.

    Divided by that of a slower one, it could be above 100 %.
    """

    def burn(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    products = {"small": ceiling.Product(lambda: burn(0.004), 1.0), "large": ceiling.Product(lambda: burn(0.001), 1.0)}
    form = harness.Alternative("form", lambda: lambda: [burn(0.002) or np.ones(1)])
    (row,) = harness.time_alternatives({}, [form], operations=1.0, seconds=0.1, tolerance=0, products=products)
    assert row.of_sgemm == pytest.approx(0.5, rel=0.2)
