"""Tests the program that makes tables and figures for the documentation from stored results of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import hardware, harness
from bench.report import tables
from tests.support.step_result import STEP


def row(pairs: int, name: str, milliseconds: float | None, note: str = "") -> harness.Row:
    seconds = None if milliseconds is None else milliseconds / 1e3
    memory = None if milliseconds is None else 1000 * pairs
    return harness.Row(
        {"N": pairs}, name, minimum=seconds, processor=seconds, median=seconds, peak_memory=memory, note=note
    )


def store(path: Path, rows: list[harness.Row]) -> Path:
    harness.store_rows(path, rows, {"tensorflow": "2.21.0"})
    return path


def test_results_of_one_kind_share_a_table_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("before\n<!-- bench:small -->\nold\n<!-- /bench:small -->\nafter\n")
    small = store(tmp_path / "small.json", [row(64, "native", 1.5), row(64, "stock", 3.0)])
    large = store(
        tmp_path / "large.json", [row(4096, "native", 71234.0), row(4096, "stock", None, "not run: too large")]
    )
    tables.main([str(small), str(large), "--write", "--figure", "figure.png"])
    written = Path("README.md").read_text().splitlines()
    assert written[:4] == ["before", "<!-- bench:small -->", "| problem | native | stock |", "|---|---|---|"]
    assert written[4] == "| N = 64 | 1.5 ms (1.5 wall, 0.064 MB) | 3 ms (3 wall, 0.064 MB) |"
    assert written[5] == "| N = 4096 | 71,200 ms (71,200 wall, 4.1 MB) | not run: too large |"
    assert (
        written[7] == f"{hardware.name_results_folder()}, TensorFlow 2.21.0, {json.loads(small.read_text())['date']}."
    )
    assert written[8:] == ["<!-- /bench:small -->", "after"]
    assert Path("figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_a_run_says_how_it_rose_what_labels_added_and_what_flatters_it() -> None:
    accuracies = {"knn": {"20": 0.4, "200": 0.35}, "knn_untrained": {"20": 0.3}, "knn_pixels": {"20": 0.2}}
    run = {"seed": 0, "seconds": None, "linear": 0.5, "precision": "float32", "tensorflow": "2.21.0", "steps": 20}
    run |= {**accuracies, "pairs_per_second": 90.0, "curve": {"10": 0.31, "20": 0.388}, "train_on": "all"}
    recipe = {"recipe": {"steps": 600, "batch_size": 128}}
    tenth, all_of_it = {"mean": 0.41, "std": 0.012, "n": 3, **recipe}, {"mean": 0.71, "std": None, "n": 1, **recipe}
    run["seeds"] = {"finetune": {"1": all_of_it, "0.1": tenth}, "linear": {"mean": 0.5, "std": 0.001, "n": 3}}
    lines = tables.format_accuracy({"runs": [run], "command": "a", "device": "b"}).splitlines()
    assert lines[2] == "| 0 | 40.0 | 35.0 | 50.0 | 30.0 | 20.0 | resumed |"
    assert lines[5:] == [
        "",
        "20-NN accuracy in per cent during the run of seed 0: 31.0 at step 10, 38.8 at step 20. Only samples of the "
        "test and training images were used, so these accuracies are lower than with all images.",
        "",
        "| classifier trained with labels | accuracy, % | seeds | training |",
        "|---|---|---|---|",
        "| fine-tuned on 10 % of the labels | 41.0 ± 1.2 | 3 | 600 steps of 128 images |",
        "| fine-tuned on 100 % of the labels | 71.0 | 1 | 600 steps of 128 images |",
        "| linear | 50.0 ± 0.1 | 3 |  |",
        "",
        "The encoder was trained on training and test images together. This inflates these numbers.",
    ]


def test_the_readmes_table_tells_the_pair_process_by_process_where_it_was_measured_so() -> None:
    result = STEP | {"versions": {"tensorflow": "2.21.0"}, "date": "2026-11-27"}
    result["config"] = STEP["config"] | {"ops": "native"}
    assert "process" not in tables.format_step_forms(result)
    assert tables.format_step_forms(result | {"encoder_by_process": [0.951, 0.98]}).endswith(
        "in each process: 0.95x, 0.98x."
    )


def test_no_share_is_above_the_matrix_product() -> None:
    """Test an op that seems faster than a matrix product, because both measured times are noisy.

    The table shows the op's speed in per cent of that of the matrix product. It must not show 126 %.
    """
    below, above = row(64, "native", 1.5), row(64, "stock", 3.0)
    below.of_sgemm, above.of_sgemm = 0.954, 1.26
    line = tables.format_times([below, above]).splitlines()[-1]
    assert "1.5 wall, 95%, " in line and f"3 wall, {tables.AT_CEILING}, " in line and "126%" not in line


def test_every_line_and_bar_of_a_figure_has_words() -> None:
    """Test that there is a name in plain words for every row of the stored results that a figure shows."""
    names = set()
    for path in Path("bench/results").glob("*/*.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        names |= set(stored["forms"]) if stored.get("benchmark") == "step" else set()
        names |= (
            {row["name"] for row in stored["rows"]} if path.stem.startswith("nt_xent") and "rows" in stored else set()
        )
    assert len(names) > 5 and names <= tables._IN_WORDS.keys(), names - tables._IN_WORDS.keys()
