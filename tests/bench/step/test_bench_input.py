"""Tests that the benchmark bench_input, which times how fast images are read and augmented for training, runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import harness
from bench.step import bench_input


@pytest.mark.slow
def test_the_input_bench_runs(tmp_path: Path) -> None:
    little = ["--encoder", "resnet20", "--stem", "cifar", "--batch", "8", "--steps", "2"]
    bench_input.main([*little, "--out", str(tmp_path / "input.json")])
    rows = harness.read_rows(tmp_path / "input.json")
    assert len(rows) == 3 and all(row.median and row.median > 0 for row in rows)
