"""Tests the benchmark bench_state_check, which times the search for NaN in the weights and in the optimizer's state.

Its stored results must show that the search takes only a small share of the time of a training step.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import harness
from bench.step import bench_state_check

STORED = sorted(harness.RESULTS.glob(f"*/{bench_state_check.NAME}"))


@pytest.mark.slow
def test_the_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_state_check.main(["--turns", "1", "--batch-size", "8", "--out", str(tmp_path / "check.json")])
    result = json.loads((tmp_path / "check.json").read_text())
    assert 0 < result["share_of_a_step"] < 1 and result["steps_between_checks"] == 100
    assert "% of a step" in capsys.readouterr().out


def test_the_sentence_names_the_share() -> None:
    result = {
        "state_bytes": 2_500_000,
        "check_processor_seconds": 0.001,
        "steps_between_checks": 100,
        "step_processor_seconds": 0.1,
        "share_of_a_step": 0.0001,
        "bar": 0.002,
    }
    said = bench_state_check.format_result(result)
    assert "2.5 MB takes 1.00 ms" in said and "0.0100 % of their time. At most 0.2 % is allowed." in said


@pytest.mark.skipif(not STORED, reason="no result is stored")
def test_every_stored_result_is_below_the_bar() -> None:
    for path in STORED:
        assert json.loads(path.read_text())["share_of_a_step"] < bench_state_check.BAR, path
