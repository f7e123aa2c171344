"""bench.report.compare fails on a regression, passes an improvement, and refuses what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.report import compare
from bench.report import step_page as step_report
from bench.report import tables as report

STEP: dict[str, Any] = {
    "benchmark": "step",
    "device": "a",
    "date": "2000-01-01",
    "load": 0.0,
    "config": {
        "encoder": "resnet50",
        "stem": "imagenet",
        "image_size": 32,
        "batch_size": 256,
        "precision": "bfloat16",
        "implementation": "native",
    },
    "whole_pairs_per_second": 200.0,
    "encoder_pairs_per_second": 204.0,
    "plain_pairs_per_second": 120.0,
    "torch_pairs_per_second": None,
    "peak_memory_bytes": 2**30,
    "forms": {
        "whole": dict(pairs_per_second=200.0, best_pairs_per_second=201.0, median_seconds=1.28, processor_seconds=2.5)
    },
    "whole_against": {},
    "missing": {"torch": "PyTorch is not installed"},
    "stages_seconds": {"views": 0.0128, "backward": 0.64, "input, loop and metrics": 0.6272},
    "operations_per_step": 2.5e11,
    "of_gemm_peak": {"float32": 0.9},
}
ROWS: dict[str, Any] = {"device": "a", "rows": [{"problem": {"N": 256}, "name": "native", "processor": 0.002}]}


def code(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], *flags: str) -> int:
    for name, result in (("old", old), ("new", new)):
        (tmp_path / name).write_text(json.dumps(result))
    return compare.main([str(tmp_path / "old"), str(tmp_path / "new"), *flags])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 0),
        ({"whole_pairs_per_second": 180.0}, 1),
        ({"whole_pairs_per_second": 196.0}, 0),
        ({"whole_pairs_per_second": 400.0}, 0),
        ({"peak_memory_bytes": 2**31}, 1),
        ({"plain_pairs_per_second": 60.0}, 0),
        ({"device": "b"}, 2),
        ({"config": {"encoder": "resnet18"}}, 2),
    ],
)
def test_only_what_got_worse_here_fails(tmp_path: Path, changed: dict[str, Any], expected: int) -> None:
    assert code(tmp_path, STEP, STEP | changed) == expected


def test_rows_are_compared_by_the_processor_time_of_what_is_ours(tmp_path: Path) -> None:
    slower = {"device": "a", "rows": [ROWS["rows"][0] | {"processor": 0.0022}]}
    assert code(tmp_path, ROWS, slower) == 1
    assert code(tmp_path, ROWS, slower, "--tolerance", "0.2") == 0
    assert code(tmp_path, slower, ROWS) == 0


def test_results_of_two_benchmarks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(tmp_path, ROWS, {"device": "a", "beyond_import_seconds": 3.0}) == 2
    assert "no quantity in common" in capsys.readouterr().err


def test_the_page_of_the_step_holds_the_results_numbers(tmp_path: Path) -> None:
    startup = {
        "benchmark": "startup",
        "device": "a",
        "import_tensorflow_seconds": 3.21,
        "first_step_seconds": 7.65,
        "parts": {"tracing of the step": {"wall": 2.34, "processor": 2.5}},
    }
    files = [tmp_path / "step.json", tmp_path / "startup.json"]
    for path, result in zip(files, (STEP, startup)):
        path.write_text(json.dumps(result))
    step_report.main([*map(str, files), "--out", str(tmp_path / "STEP.md")])
    page = (tmp_path / "STEP.md").read_text()
    for number in ("| views | 12.8 | 1.0% |", "| backward | 640.0 | 50.0% |", "200.0", "1024 MiB", "2.34", "7.7 s"):
        assert number in page
    assert "PyTorch is not installed" in page
    assert "processes" not in page
    files[0].write_text(json.dumps(STEP | {"encoder_by_process": [0.9514, 0.98]}))
    step_report.main([*map(str, files), "--out", str(tmp_path / "STEP.md")])
    assert "Of the encoder in each of 2 processes: 0.951, 0.980." in (tmp_path / "STEP.md").read_text()


def test_the_readmes_table_tells_the_pair_process_by_process_where_it_was_measured_so() -> None:
    result = STEP | {"versions": {"tensorflow": "2.21.0"}, "date": "2026-11-27"}
    result["config"] = STEP["config"] | {"ops": "native"}
    assert "process" not in report.step_table(result)
    assert report.step_table(result | {"encoder_by_process": [0.951, 0.98]}).endswith("by process: 0.95x, 0.98x.")
