"""Tests the benchmark bench_network, in which two processes (workers) train over a slow network.

They must need the bytes and the seconds that a formula (the scaling model) predicts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.step import bench_network
from tests.support.virtual_switch import find_problem

PROBLEM = find_problem()


@pytest.mark.slow
@pytest.mark.skipif(bool(PROBLEM), reason=PROBLEM)
def test_the_bytes_on_the_wire_and_their_time_are_those_of_the_model(tmp_path: Path) -> None:
    """Test a network that is so slow that the exchange of data takes most of the time of a step.

    The headers of the network and of gRPC may add a tenth to the bytes. The rate of the imitated network is limited by
    a token bucket. After a pause, it lets some bytes through without delay (a burst). So a step can be faster than
    predicted, by the time of these bytes.
    """
    stored, rate = tmp_path / "network.json", 5e6
    flags = ["--encoder", "resnet20", "--image-size", "8", "--turns", "4", "--rates", str(rate)]
    assert bench_network.main([*flags, "--json", str(stored)]) == 0
    free, slow = json.loads(stored.read_text())["rows"]
    for row in (free, slow):
        assert row["predicted_bytes"] <= row["wire_bytes"] <= 1.1 * row["predicted_bytes"], row
    saved = 8 * bench_network.choose_burst(rate) / rate
    assert slow["predicted_seconds"] > 2 * free["best_seconds"], "the cable is too fast for this test"
    assert slow["best_seconds"] >= slow["predicted_seconds"] - saved
    assert slow["best_seconds"] <= 1.5 * slow["predicted_seconds"] + 2 * free["best_seconds"]


def test_the_table_has_a_line_for_each_rate() -> None:
    row = {"rate": None, "best_seconds": 0.5, "predicted_bytes": 2e6, "wire_bytes": 2.1e6, "predicted_seconds": 0.0}
    slow = {**row, "rate": 1e9, "best_seconds": 0.52, "predicted_seconds": 0.016}
    config = {"encoder": "resnet20", "image_size": 8, "batch_size": 8}
    table = bench_network.format_table({"rows": [row, slow], "config": config, "device": "a machine"})
    assert "| none | 2.00 | 2.10 | 0 | 0 | 500 |" in table and "| 1 Gbit/s | 2.00 | 2.10 | 16 | 20 | 520 |" in table
