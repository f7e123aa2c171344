"""Tests the benchmark bench_launchers, which times the C functions that start the CUDA kernels (launchers).

In these tests, NumPy code imitates PyTorch and the launchers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.ops import bench_launchers as bench


class Array:
    """An imitation of a PyTorch tensor on a GPU, made with NumPy. It has the methods that the benchmark calls."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def to(self, dtype: Any) -> Array:
        return Array(self.array.astype(dtype))

    def cuda(self) -> Array:
        return self

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def numel(self) -> int:
        return self.array.size

    def element_size(self) -> int:
        return self.array.itemsize


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None: ...

    def elapsed_time(self, end: Event) -> float:
        return 2.0


def torch() -> Any:
    """Return an imitation of PyTorch, made with NumPy. It has the functions that the benchmark calls."""

    def empty(shape: Any, dtype: Any = np.float32, device: str = "") -> Array:
        return Array(np.zeros(shape, dtype))

    def randn(*shape: int, device: str) -> Array:
        return Array(np.zeros(shape, np.float32))

    cuda = SimpleNamespace(Event=Event, synchronize=lambda: None, current_stream=lambda: SimpleNamespace(cuda_stream=0))
    return SimpleNamespace(
        cuda=cuda, empty=empty, zeros=empty, ones=empty, randn=randn, from_numpy=Array,
        empty_like=lambda x: Array(np.zeros_like(x.array)), full=lambda shape, value, device: empty(shape),
        tensor=lambda values, dtype=np.float32, device="": Array(np.array(values, dtype)),
        randint=lambda low, high, shape, dtype, device: empty(shape, dtype),
        bfloat16=np.uint16, float32=np.float32, float64=np.float64, uint8=np.uint8, bool=np.bool_,
    )  # fmt: skip


class Launchers:
    """An imitation of the library of launchers. It counts the calls. Each call returns `why`, an error text or None."""

    def __init__(self, why: bytes | None = None) -> None:
        self.calls: dict[str, int] = {}
        self.why = why

    def __getattr__(self, name: str) -> Any:
        def launcher(*arguments: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return 64 if name.endswith(("workspace_bytes", "partial_sums")) else self.why

        return launcher


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PAIRS", (8,))
    monkeypatch.setattr(bench, "SIZES", ((64, 32, 32, "bfloat16"),))
    monkeypatch.setattr(bench, "UPDATED", (100,))


def test_every_problem_is_timed_for_both_libraries_in_turns() -> None:
    libraries = {"old": Launchers(), "new": Launchers()}
    rows = list(bench.time_problems(torch(), libraries, 2))
    assert [(row["library"], row["turn"]) for row in rows] == [("old", 0), ("new", 0), ("old", 1), ("new", 1)] * 5
    assert libraries["old"].calls == libraries["new"].calls
    views = next(row for row in rows if row["what"] == "make_views")
    assert views["gb_s"] == pytest.approx((64 * 32 * 32 * 3 + 128 * 32 * 32 * 3 * 2) / 2.0 / 1e6)
    assert next(row for row in rows if row["what"] == "lars_update")["gb_s"] == pytest.approx(28 * 100 / 2.0 / 1e6)


def test_a_launcher_that_fails_ends_the_bench_with_its_words() -> None:
    with pytest.raises(RuntimeError, match="no kernel image"):
        list(bench.time_problems(torch(), {"new": Launchers(b"no kernel image")}, 1))
