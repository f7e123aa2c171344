"""The page of the step holds the numbers of its results."""

from __future__ import annotations

import json
from pathlib import Path

from bench.report import step_page
from bench.step import bench_step_sizes
from tests.support.step_result import STEP


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
    step_page.main([*map(str, files), "--out", str(tmp_path / "STEP.md")])
    page = (tmp_path / "STEP.md").read_text()
    for number in ("| views | 12.8 | 1.0% |", "| backward | 640.0 | 50.0% |", "200.0", "1024 MiB", "2.34", "7.7 s"):
        assert number in page
    assert "PyTorch is not installed" in page
    assert "processes" not in page
    files[0].write_text(json.dumps(STEP | {"encoder_by_process": [0.9514, 0.98]}))
    step_page.main([*map(str, files), "--out", str(tmp_path / "STEP.md")])
    assert "Of the encoder in each of 2 processes: 0.951, 0.980." in (tmp_path / "STEP.md").read_text()


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
    page = step_page.format_page([{"benchmark": "step_sizes", "device": "a", "date": "b", "load": 1.0, "rows": rows}])
    assert "| resnet50, 64, float32 | 80 (80) | 64 (64) | 107 (107) | 0.750x | 1.250x |" in page
    assert "| resnet50, 4096, float32 | out of memory | out of memory | out of memory |  |  |" in page
