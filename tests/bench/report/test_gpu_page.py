"""Tests that the tables on the page docs/gpu.md show the stored results of the benchmarks on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import harness
from bench.report import gpu_page

ROOT = Path(__file__).parents[3]
ROW = {"what": "nt_xent", "pairs": 8, "dtype": "float32"}


def row(library: str, forward: float, backward: float) -> dict[str, object]:
    return {**ROW, "library": library, "forward": {"median_ms": forward}, "backward": {"median_ms": backward}}


def test_the_page_holds_what_the_results_say() -> None:
    shown = gpu_page.format_page(harness.RESULTS / "NVIDIA-H200")
    assert shown in (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")


def test_ratios_are_turn_by_turn_of_both_passes() -> None:
    rows = [row("old", 3, 3), row("new", 1, 1), row("old", 4, 8), row("new", 2, 1), row("old", 5, 5), row("new", 4, 1)]
    found = gpu_page.format_launchers({"ceilings": {"copy_gb_s": 100.0}, "rows": rows})
    assert found == ["| NT-Xent, both passes, N = 8, d = 128, float32 | 3.000 | 3.00x (2.00-4.00) |  |"]


def test_a_share_of_the_copy_is_of_the_new_launchers() -> None:
    about = {"what": "lars_update", "count": 5, "median_ms": 2.0}
    rows = [{**about, "library": "new", "gb_s": 50.0}, {**about, "library": "old", "gb_s": 10.0}]
    found = gpu_page.format_launchers({"ceilings": {"copy_gb_s": 100.0}, "rows": rows})
    assert found == ["| LARS, 5 floats | 2.000 | 1.00x (1.00-1.00) | 50% |"]


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gpu_report -->\nold\n<!-- /gpu_report -->\nbehind\n", encoding="utf-8")
    gpu_page.main([str(harness.RESULTS / "NVIDIA-H200"), "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- gpu_report -->\nNVIDIA H200") and text.endswith(
        "<!-- /gpu_report -->\nbehind\n"
    )


@pytest.mark.parametrize("name", ["launchers.json", "launchers_lars_update.json"])
def test_results_of_launchers_name_their_device(name: str) -> None:
    found = json.loads((harness.RESULTS / "NVIDIA-H200" / name).read_text(encoding="utf-8"))
    assert found["device"] == "NVIDIA H200" and found["rows"]
