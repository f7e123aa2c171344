"""Tests the benchmark bench_step, which times a training step and its stages.

It compares the whole training step with the encoder alone. For this it starts several processes, which share the work.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bench.step import bench_step, processes, turns


@pytest.mark.slow
def test_the_step_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = ["--batch-size", "4", "--turns", "2", "--steps-per-turn", "1", "--no-baselines", "--no-memory"]
    small = ["--encoder", "resnet20", "--stem", "cifar", "--image-size", "16", "--processes", "2"]
    assert bench_step.main([*small, *little, "--json", str(tmp_path / "step.json")]) == 0
    assert "pairs/s" in capsys.readouterr().out
    result = json.loads((tmp_path / "step.json").read_text())
    assert result["whole_pairs_per_second"] > 0 and result["encoder_pairs_per_second"] > 0
    assert len(result["encoder_by_process"]) == 2
    assert set(result["stages_seconds"]) >= {"views", "f forward", "loss", "backward", "optimizer"}


def test_the_bench_prints_no_negative_stage() -> None:
    lines = bench_step.format_stages({"stages_seconds": {"views": -0.01, "loss": 0.005, "backward": 0.5}})
    assert [line.split() for line in lines[2:]] == [
        ["views", "below", "the", "noise"],
        ["loss", "below", "the", "noise"],
        ["backward", "500.0", "100.0%"],
    ]
    assert bench_step.format_stages({"stages_seconds": {}}) == []


def test_turns_of_the_pair_are_shared_out_among_processes_and_put_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Job:
        def __init__(self, config: object) -> None:
            self.run = print

    monkeypatch.setattr(bench_step, "Job", Job)
    monkeypatch.setattr(bench_step, "make_encoder_call", lambda job: lambda: 0)
    monkeypatch.setattr(
        bench_step,
        "take_turns",
        lambda pair, number, count, settle: {name: {"wall": [1.0] * number, "processor": [2.0]} for name in pair},
    )
    started: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        """Run the command in this process, not in a new one. First print a line, as a library might do."""
        started.append(command[3:])
        print("a warning")
        assert bench_step.main(command[3:]) == 0
        return subprocess.CompletedProcess(command, 0, capsys.readouterr().out, "")

    monkeypatch.setattr(processes.subprocess, "run", run)
    chosen = bench_step.make_parser().parse_args(["--turns", "4", "--processes", "5"])
    chosen.arguments = ["--turns", "4", "--processes", "5"]
    found = bench_step.measure_pair(chosen)
    assert started == [[*chosen.arguments, "--pair-only"]] * 5
    assert found == [{name: {"wall": [1.0] * 3, "processor": [2.0]} for name in ("whole", "encoder")}] * 5
    whole = turns.join_turns(found)
    assert list(whole) == ["whole", "encoder"]
    assert whole["encoder"] == {"wall": [1.0] * 15, "processor": [2.0] * 5}


def test_a_process_of_the_pair_that_fails_ends_the_bench_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no memory")
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        SystemExit, match="python -m bench.step.bench_step --no-baselines --pair-only failed: no memory"
    ):
        bench_step.main(["--no-baselines"])
    with pytest.raises(SystemExit, match="--processes is 0, so nothing would be measured. Use 1 or more"):
        bench_step.main(["--processes", "0"])
