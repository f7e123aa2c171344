"""Tests the benchmark bench_step_sizes, which times training steps with different encoders and batch sizes.

If a step does not fit into the memory, its row in the table must say so.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from bench.report import step_page
from bench.step import bench_step_sizes


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
    step_page.main([str(tmp_path / "sizes.json"), "--out", str(tmp_path / "STEP.md")])
    assert "| resnet20, 8, float32 | " in (tmp_path / "STEP.md").read_text()


def test_a_process_without_memory_is_a_row_and_any_other_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"encoder": "resnet50", "N": 4096, "precision": "float32"}

    def ends(code: int, stderr: str) -> list[str]:
        done = subprocess.CompletedProcess([], code, stdout="", stderr=stderr)
        monkeypatch.setattr(subprocess, "run", lambda *given, **more: done)
        return [row.note for row in bench_step_sizes.time_in_own_process([], problem)]

    nothing = [bench_step_sizes.OUT_OF_MEMORY] * 3
    assert ends(-signal.SIGKILL, "") == ends(1, "ResourceExhaustedError: OOM when allocating") == nothing
    with pytest.raises(SystemExit, match="no such encoder"):
        ends(1, "no such encoder")
