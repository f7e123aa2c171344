"""Tests the benchmark first_steps, which stops a training after its first steps and summarizes their losses."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from bench.learning import first_steps
from bench.report import tables


def write_run(folder: Path, steps: int) -> Path:
    """Write the folder of a training with this number of steps. The loss of step n is n."""
    folder.mkdir()
    rows = [
        {"step": n, "loss": float(n), "top1": 0.25, "learning_rate": 1.0, "pairs_per_second": 8.0}
        for n in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, loss = {"encoder": "resnet50", "stem": "cifar"}, {"loss_reduction": "mean"}
    (folder / "config.json").write_text(json.dumps({"train": {"batch_size": 16}, "model": model, "loss": loss}))
    environment = {"earlier": [], "precision": "float32", "tensorflow": "2.21.0", "git": "abc"}
    environment["peak_memory_bytes"] = {"host": 5_000_000_000}
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def test_the_first_steps_of_a_run_are_told_in_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "day29-first-steps", 5)
    out = tmp_path / "first_steps_day29.json"
    first_steps.main(["day29", "--steps", "4", "--at-once", "2", "--runs", str(tmp_path), "--json", str(out)])
    capsys.readouterr()
    tables.main([str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["| 1-2 | 1.500 | 25.0 % |", "| 3-4 | 3.500 | 25.0 % |"]
    assert lines[5].startswith(
        "`python -m bench.learning.first_steps day29 --steps 4`; resnet50, cifar stem, batch 16; "
    )
    assert lines[5].endswith(  # 3.434 is log 31
        " If all similarities were equal, the loss would be 3.434. The median time of a step is 2.0 s. "
        "Peak memory: 5.0 GB."
    )


def test_a_training_that_ends_too_early_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with exit code 3 before step 2"):
        first_steps.train_until([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, 2)


def test_a_training_that_ends_between_two_looks_has_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [[], [{"step": 1}, {"step": 2}]]

    looked = tmp_path / "looked"  # the training process ends as soon as this file exists

    def late(folder: Path) -> list[dict[str, int]]:
        looked.touch()
        time.sleep(1.0)  # after this pause, the process has ended
        return looks.pop(0)

    monkeypatch.setattr(first_steps.results, "read_metrics", late)
    program = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists():\n    time.sleep(0.01)"
    first_steps.train_until([sys.executable, "-c", program, str(looked)], tmp_path, 2)
    assert looks == []


def test_a_training_is_ended_once_it_has_the_steps(tmp_path: Path) -> None:
    code = f"""
import json, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(tmp_path)!r}, "ended").touch(), sys.exit(0)))
with open(pathlib.Path({str(tmp_path)!r}, "metrics.jsonl"), "w") as file:
    for step in range(1, 100):
        file.write(json.dumps(dict(step=step, loss=1.0, top1=0.0, learning_rate=1.0, pairs_per_second=1.0)) + "\\n")
        file.flush()
        time.sleep(0.1)
"""
    first_steps.train_until([sys.executable, "-c", code], tmp_path, 2)
    assert (tmp_path / "ended").exists()
    assert 2 <= len((tmp_path / "metrics.jsonl").read_text().splitlines()) < 99
