"""Tests the benchmarks that compare several ways to program a training step.

They must run, and report the median over several processes.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.step import bench_step_loop, bench_step_program, bench_step_updates, processes, step_ways


@pytest.mark.slow
@pytest.mark.parametrize("bench", [bench_step_updates, bench_step_loop, bench_step_program])
def test_the_benches_of_ways_run(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = ["--batch-size", "4", "--turns", "2", "--steps-per-turn", "1"]
    small = ["--encoder", "resnet20", "--stem", "cifar", "--image-size", "16"]
    small += ["--xla", "on"] if bench is bench_step_program else []
    bench.main(["--out", str(tmp_path / "ways.json"), *small, *little])
    ways = [*bench.WAYS, "encoder"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ways
    result = json.loads((tmp_path / "ways.json").read_text())
    assert list(result["forms"]) == ways
    assert [list(forms) for forms in result["processes"]] == [ways, [*ways[-2::-1], "encoder"]]


def test_ways_are_told_by_their_medians_over_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def found(module: str, ways: list[str], flags: list[str]) -> step_ways.Forms:
        asked.append([module, *ways, *flags])
        keys = ("pairs_per_second", "median_seconds", "p10_seconds", "p90_seconds", "processor_seconds")
        return {way: dict.fromkeys(keys, float(len(asked) ** 2)) for way in ways}

    monkeypatch.setattr(step_ways, "time_in_own_process", found)
    bench_step_loop.main(["--processes", "3", "--out", str(tmp_path / "ways.json"), "--turns", "5"])
    loop = "bench.step.bench_step_loop"
    called, inline = [loop, "called", "inline", "--turns", "5"], [loop, "inline", "called", "--turns", "5"]
    assert asked == [called, inline, called]
    assert json.loads((tmp_path / "ways.json").read_text())["forms"]["inline"]["median_seconds"] == 4
    with pytest.raises(SystemExit, match="--processes is 0, so nothing would be measured. Use 1 or more"):
        bench_step_loop.main(["--processes", "0"])


def test_a_process_of_the_ways_that_fails_ends_the_bench_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no memory")
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="python -m bench.step.bench_step_loop .* failed: no memory"):
        bench_step_loop.main(["--out", str(tmp_path / "ways.json")])
    assert not list(tmp_path.iterdir())


def test_a_flag_that_no_parser_knows_is_refused_before_the_first_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_ways, "time_in_own_process", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(SystemExit):
        bench_step_loop.main(["--out", str(tmp_path / "ways.json"), "--no-memory"])
    assert "unrecognized arguments: --no-memory" in capsys.readouterr().err
