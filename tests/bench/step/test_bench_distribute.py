"""Tests that the benchmark bench_distribute, which times training on several devices (replicas), runs to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.step import bench_distribute


@pytest.mark.slow
def test_the_bench_runs_and_writes_its_tables(tmp_path: Path) -> None:
    little = ["--batch-size", "8", "--image-size", "8", "--rounds", "1", "--turns", "2", "--steps-per-turn", "1"]
    model = ["--model-encoder", "resnet20", "--model-stem", "cifar", "--model-size", "8", "--model-widths", "16", "8"]
    page, stored = tmp_path / "page.md", tmp_path / "distribute.json"
    page.write_text(
        "".join(f"<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->\n" for name in ("distribute", "scaling"))
    )
    assert bench_distribute.main([*little, *model, "--json", str(stored), "--page", str(page)]) == 0
    result = json.loads(stored.read_text())
    assert [form["replicas"] for form in result["forms"].values()] == [1, 2, 4, 2]
    two = result["forms"]["2 processes"]
    assert two["moved"] == result["forms"]["2 replicas"]["moved"]
    # There may be more bytes: TCP, gRPC and heartbeats add some, and other programs may use the loopback device too.
    assert two["loopback_bytes"] >= 2 * sum(two["moved"].values())
    assert "| 2 processes |" in page.read_text() and "| 1024 |" in page.read_text() and "old" not in page.read_text()
