"""Tests that the benchmark bench_micro_batch runs. It times training steps whose batch is split into parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.step import bench_micro_batch


@pytest.mark.slow
def test_the_micro_batch_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = ["--batch-size", "8", "--micro-batch", "4", "--turns", "2", "--small-steps", "1", "--no-memory"]
    small = ["--encoder", "resnet20", "--stem", "cifar", "--image-size", "16"]
    assert bench_micro_batch.main([*small, *little, "--json", str(tmp_path / "micro.json")]) == 0
    assert "of the highest possible speed by the medians" in capsys.readouterr().out
    result = json.loads((tmp_path / "micro.json").read_text())
    whole, step, forward = (result["seconds"][name]["minimum"] for name in ("whole", "step", "forward"))
    assert result["of_possible_speed"]["by_minima"] == pytest.approx(2 * (step + forward) / whole)
