"""Tests how growth.py computes the growth of a process's memory from samples."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.faults import growth


def test_steady_memory_has_no_growth() -> None:
    start_up = [(step, 50 * step) for step in range(300)]
    steady = [(step, 20_000 + 7 * (step % 3)) for step in range(300, 1000)]
    assert abs(growth.compute_growth(start_up + steady)) < 10


def test_a_leak_of_a_byte_a_step_is_found() -> None:
    leak = [(step, 20_000 + step) for step in range(1000)]
    assert 380 < growth.compute_growth(leak) < 420


def test_resident_memory_is_that_of_the_process() -> None:
    before = growth.read_resident(os.getpid())
    held = np.ones(8 * 2**20)  # 64 MiB
    assert growth.read_resident(os.getpid()) - before > 32 * 2**20
    assert held[0] == 1 and Path("/proc/self/statm").exists()
