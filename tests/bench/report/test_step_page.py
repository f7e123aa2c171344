"""Tests that the page docs/step.md, about the time of a training step, shows the numbers of the stored results."""

from __future__ import annotations

import json
import re
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
    assert "in each of" not in page
    files[0].write_text(json.dumps(STEP | {"encoder_by_process": [0.9514, 0.98]}))
    step_page.main([*map(str, files), "--out", str(tmp_path / "STEP.md")])
    assert (
        "Speed of the whole job relative to the encoder, in each of 2 processes: 0.951, 0.980."
        in (tmp_path / "STEP.md").read_text()
    )


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


def test_a_stage_no_larger_than_a_negative_one_is_below_the_noise() -> None:
    stages = {"views": 0.0038, "f forward": 0.6, "g forward": -0.02, "backward": 1.4, "loss": 0.02}
    lines = step_page.format_step(STEP | {"stages_seconds": stages}).splitlines()
    assert [line for line in lines if "below the noise" in line] == [
        f"| {name} | below the noise | |" for name in ("views", "g forward", "loss")
    ]
    assert "| f forward | 600.0 | 30.0% |" in lines and "| backward | 1400.0 | 70.0% |" in lines
    assert "Noise of this table: 20.0 ms." in lines


def test_a_stage_smaller_than_its_own_noise_is_below_it() -> None:
    """Test a result that has a noise (error of the time) for each stage. Older results have one for all stages."""
    more = {"stages_noise_seconds": {"views": 0.02, "backward": 0.01, "input, loop and metrics": 0.1}}
    shown = [line for line in step_page.format_step(STEP | more).splitlines() if line.startswith(("| views", "| back"))]
    assert shown == ["| views | below the noise | |", "| backward | 640.0 | 50.5% |"]


def test_the_ceiling_is_that_of_the_steps_precision_and_no_share_is_above_it() -> None:
    rates = {"float32": 6.3, "bfloat16": 0.9}
    shown = [
        step_page.format_step(STEP | {"of_gemm_peak": rates, **more}).splitlines()[-2]
        for more in ({}, {"config": STEP["config"] | {"precision": "float32"}}, {"mfu": 0.245})
    ]
    assert [line.partition(". It reaches ")[2] for line in shown] == [
        "90% of the rate of this machine's bfloat16 matrix product.",
        "no less than 100% of the rate of this machine's float32 matrix product.",
        "24% of the peak in the data sheet.",
    ]


def test_no_page_shows_a_negative_stage_or_a_share_above_one() -> None:
    page = step_page.STEP.read_text(encoding="utf-8")
    assert "| -" not in page.replace("|---", "") and "below the noise" in page
    assert [number for number in re.findall(r"(\d+)% of", page) if int(number) > 100] == []
