"""Tests the benchmark bench_convolution: it must run, and must not count multiplications with padding as operations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.ops import bench_convolution


@pytest.mark.parametrize(
    ("side", "size", "stride", "products"), [(1, 3, 1, 1), (2, 3, 1, 16), (2, 1, 2, 1), (4, 3, 1, 100)]
)
def test_operations_of_a_convolution_leave_padding_out(side: int, size: int, stride: int, products: int) -> None:
    found = bench_convolution.count_operations(side, size, stride, 5, 7, rows=2)
    assert found == 3 * 2 * 2 * products * 5 * 7  # 3 passes x 2 operations x 2 images x products x channels


@pytest.mark.slow
def test_the_convolution_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_convolution.main(["--views", "2", "--seconds", "0", "--json", str(tmp_path / "convolution.json")])
    assert "matrix product" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "convolution.json").read_text())["rows"]) >= 2 * len(bench_convolution.SHAPES)
