"""The benchmarks of the training step run, and what they store becomes a page."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.report import step_page as step_report
from bench.step import bench_micro_batch, bench_step, bench_step_loop, bench_step_sizes, bench_step_updates, step_ways


@pytest.mark.slow
def test_the_micro_batch_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = ["--batch-size", "8", "--micro-batch", "4", "--turns", "2", "--small-steps", "1", "--no-memory"]
    small = ["--encoder", "resnet20", "--stem", "cifar", "--image-size", "16"]
    assert bench_micro_batch.main([*small, *little, "--json", str(tmp_path / "micro.json")]) == 0
    assert "of the possible speed by medians" in capsys.readouterr().out
    result = json.loads((tmp_path / "micro.json").read_text())
    whole, step, forward = (result["seconds"][name]["minimum"] for name in ("whole", "step", "forward"))
    assert result["of_possible_speed"]["by_minima"] == pytest.approx(2 * (step + forward) / whole)


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


@pytest.mark.slow
def test_the_bench_of_sizes_runs_and_its_table_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = ["--batch-sizes", "4", "8", "--turns", "2", "--images-per-turn", "8", "--precisions", "float32"]
    small = ["--encoders", "resnet20", "--stem", "cifar", "--image-size", "16", "--json", str(tmp_path / "sizes.json")]
    assert bench_step_sizes.main([*small, *little]) == 0
    assert "native ops" in capsys.readouterr().out
    result = json.loads((tmp_path / "sizes.json").read_text())
    assert [(row["problem"]["N"], row["name"]) for row in result["rows"]] == [
        (count, name) for count in (4, 8) for name in bench_step_sizes.FORMS
    ]
    assert all(row["minimum"] > 0 and row["processor"] > 0 for row in result["rows"])
    step_report.main([str(tmp_path / "sizes.json"), "--out", str(tmp_path / "STEP.md")])
    assert "| resnet20, 8, float32 | " in (tmp_path / "STEP.md").read_text()


def test_sizes_are_told_in_pairs_a_second_and_a_size_that_did_not_fit_says_so() -> None:
    def row(count: int, name: str, seconds: float | None) -> dict[str, object]:
        timed = {"minimum": seconds, "median": seconds, "processor": seconds}
        problem = {"encoder": "resnet50", "N": count, "precision": "float32"}
        return {
            "problem": problem,
            "name": name,
            "note": "" if seconds else bench_step_sizes.OUT_OF_MEMORY,
            "repeats": 3,
            **timed,
        }

    rows = [row(64, name, seconds) for name, seconds in zip(bench_step_sizes.FORMS, (0.8, 1.0, 0.6))]
    rows += [row(4096, name, None) for name in bench_step_sizes.FORMS]
    page = step_report.text([{"benchmark": "step_sizes", "device": "a", "date": "b", "load": 1.0, "rows": rows}])
    assert "| resnet50, 64, float32 | 80 (80) | 64 (64) | 107 (107) | 0.750x | 1.250x |" in page
    assert "| resnet50, 4096, float32 | out of memory | out of memory | out of memory |  |  |" in page


def test_a_process_without_memory_is_a_row_and_any_other_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"encoder": "resnet50", "N": 4096, "precision": "float32"}

    def ends(code: int, stderr: str) -> list[str]:
        done = subprocess.CompletedProcess([], code, stdout="", stderr=stderr)
        monkeypatch.setattr(subprocess, "run", lambda *given, **more: done)
        return [row.note for row in bench_step_sizes.in_own_process([], problem)]

    nothing = [bench_step_sizes.OUT_OF_MEMORY] * 3
    assert ends(-signal.SIGKILL, "") == ends(1, "ResourceExhaustedError: OOM when allocating") == nothing
    with pytest.raises(SystemExit, match="no such encoder"):
        ends(1, "no such encoder")


@pytest.mark.slow
@pytest.mark.parametrize("bench", [bench_step_updates, bench_step_loop])
def test_the_benches_of_ways_run(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    little = ["--batch-size", "4", "--turns", "2", "--steps-per-turn", "1"]
    small = ["--encoder", "resnet20", "--stem", "cifar", "--image-size", "16"]
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

    monkeypatch.setattr(step_ways, "in_own_process", found)
    bench_step_loop.main(["--processes", "3", "--out", str(tmp_path / "ways.json"), "--turns", "5"])
    loop = "bench.step.bench_step_loop"
    called, inline = [loop, "called", "inline", "--turns", "5"], [loop, "inline", "called", "--turns", "5"]
    assert asked == [called, inline, called]
    assert json.loads((tmp_path / "ways.json").read_text())["forms"]["inline"]["median_seconds"] == 4
    with pytest.raises(SystemExit, match="--processes 0 times nothing: give 1 or more"):
        bench_step_loop.main(["--processes", "0"])


def test_a_process_of_the_ways_that_fails_ends_the_bench_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no memory")
    monkeypatch.setattr(bench_step.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="the process of bench.step.bench_step_loop .* failed: no memory"):
        bench_step_loop.main(["--out", str(tmp_path / "ways.json")])
    assert not list(tmp_path.iterdir())


def test_turns_of_the_pair_are_shared_out_among_processes_and_put_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Job:
        def __init__(self, config: object) -> None:
            self.run = print

    monkeypatch.setattr(bench_step, "Job", Job)
    monkeypatch.setattr(bench_step, "encoder_alone", lambda job: lambda: 0)
    monkeypatch.setattr(
        bench_step,
        "take_turns",
        lambda pair, turns, count, settle: {name: {"wall": [1.0] * turns, "processor": [2.0]} for name in pair},
    )
    started: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        """The child's work in this process, with a line of a library before its answer."""
        started.append(command[3:])
        print("a warning")
        assert bench_step.main(command[3:]) == 0
        return subprocess.CompletedProcess(command, 0, capsys.readouterr().out, "")

    monkeypatch.setattr(bench_step.subprocess, "run", run)
    chosen = bench_step.parser().parse_args(["--turns", "4", "--processes", "5"])
    chosen.arguments = ["--turns", "4", "--processes", "5"]
    found = bench_step.pair_times(chosen)
    assert started == [[*chosen.arguments, "--pair-only"]] * 5
    assert found == [{name: {"wall": [1.0] * 3, "processor": [2.0]} for name in ("whole", "encoder")}] * 5
    whole = bench_step.together(found)
    assert list(whole) == ["whole", "encoder"]
    assert whole["encoder"] == {"wall": [1.0] * 15, "processor": [2.0] * 5}


def test_a_process_of_the_pair_that_fails_ends_the_bench_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no memory")
    monkeypatch.setattr(bench_step.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        SystemExit, match="the process of bench.step.bench_step --no-baselines --pair-only failed: no memory"
    ):
        bench_step.main(["--no-baselines"])
    with pytest.raises(SystemExit, match="--processes 0 times nothing: give 1 or more"):
        bench_step.main(["--processes", "0"])


def test_forms_take_turns_in_changing_order_each_behind_a_step_of_its_own() -> None:
    seen: list[tuple[str, int]] = []
    forms = {name: lambda count, name=name: seen.append((name, count)) for name in "abc"}
    times = bench_step.take_turns(forms, 6, 4, settle=1)
    assert seen[:6] == [(name, 4) for name in "aabbcc"], "warmed up"
    turns = [seen[start : start + 6] for start in range(6, len(seen), 6)]
    assert len(turns) == 6 and all(len(each["wall"]) == len(each["processor"]) == 6 for each in times.values())
    for turn in turns:
        assert sorted(turn) == sorted([(name, count) for name in "abc" for count in (1, 4)])
        assert turn[1::2] == [(name, 4) for name, _ in turn[::2]], "timed behind its own step"
    assert len({tuple(turn) for turn in turns}) > 1
