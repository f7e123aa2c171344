"""Stored results become a table between markers and a figure."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from bench import harness
from bench.learning import first_steps
from bench.report import tables as report


def row(pairs: int, name: str, milliseconds: float | None, note: str = "") -> harness.Row:
    seconds = None if milliseconds is None else milliseconds / 1e3
    memory = None if milliseconds is None else 1000 * pairs
    return harness.Row(
        {"N": pairs}, name, minimum=seconds, processor=seconds, median=seconds, peak_memory=memory, note=note
    )


def store(path: Path, rows: list[harness.Row]) -> Path:
    harness.store(path, rows, {"tensorflow": "2.21.0"})
    return path


def test_results_of_one_kind_share_a_table_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("before\n<!-- bench:small -->\nold\n<!-- /bench:small -->\nafter\n")
    small = store(tmp_path / "small.json", [row(64, "native", 1.5), row(64, "stock", 3.0)])
    large = store(
        tmp_path / "large.json", [row(4096, "native", 71234.0), row(4096, "stock", None, "not run: too large")]
    )
    report.main([str(small), str(large), "--readme", "--figure", "figure.png"])
    written = Path("README.md").read_text().splitlines()
    assert written[:4] == ["before", "<!-- bench:small -->", "| problem | native | stock |", "|---|---|---|"]
    assert written[4] == "| N = 64 | 1.5 ms (1.5 wall, 0.064 MB) | 3 ms (3 wall, 0.064 MB) |"
    assert written[5] == "| N = 4096 | 71,200 ms (71,200 wall, 4.1 MB) | not run: too large |"
    assert written[7] == f"{harness.device_name()}, TensorFlow 2.21.0, {json.loads(small.read_text())['date']}."
    assert written[8:] == ["<!-- /bench:small -->", "after"]
    assert Path("figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_the_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no markers <!-- bench:steps -->"):
        report.write_into_readme(page, "steps", "| table |")
    assert page.read_text() == "no markers"


def test_the_table_of_a_run_says_how_it_rose_what_labels_added_and_what_flatters_it() -> None:
    accuracies = {"knn": {"20": 0.4, "200": 0.35}, "knn_untrained": {"20": 0.3}, "knn_pixels": {"20": 0.2}}
    run = {"seed": 0, "seconds": None, "linear": 0.5, "precision": "float32", "tensorflow": "2.21.0", "steps": 20}
    run |= {**accuracies, "pairs_per_second": 90.0, "curve": {"10": 0.31, "20": 0.388}, "train_on": "all"}
    recipe = {"recipe": {"steps": 600, "batch_size": 128}}
    tenth, all_of_it = {"mean": 0.41, "std": 0.012, "n": 3, **recipe}, {"mean": 0.71, "std": None, "n": 1, **recipe}
    run["seeds"] = {"finetune": {"1": all_of_it, "0.1": tenth}, "linear": {"mean": 0.5, "std": 0.001, "n": 3}}
    lines = report.accuracy_table({"runs": [run], "command": "a", "device": "b"}).splitlines()
    assert lines[2] == "| 0 | 40.0 | 35.0 | 50.0 | 30.0 | 20.0 | resumed |"
    assert lines[5:] == [
        "",
        "k-NN 20 along the run of seed 0 (a sample of the test images among a sample of the train images, which is "
        "lower than among all): 31.0 at step 10, 38.8 at step 20.",
        "",
        "| trained with labels | accuracy | seeds | training |",
        "|---|---|---|---|",
        "| fine-tuned on 10 % | 41.0 ± 1.2 | 3 | 600 steps of 128 images |",
        "| fine-tuned on 100 % | 71.0 | 1 | 600 steps of 128 images |",
        "| linear | 50.0 ± 0.1 | 3 |  |",
        "",
        "Trained on train and test images together, which inflates these numbers.",
    ]


def begun(folder: Path, steps: int) -> Path:
    """A run folder with so many steps, of which number n has a loss of n."""
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
    begun(tmp_path / "day29-first-steps", 5)
    out = tmp_path / "first_steps_day29.json"
    first_steps.main(["day29", "--steps", "4", "--at-once", "2", "--runs", str(tmp_path), "--json", str(out)])
    capsys.readouterr()
    report.main([str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["| 1-2 | 1.500 | 25.0 % |", "| 3-4 | 3.500 | 25.0 % |"]
    assert lines[5].startswith(
        "`python -m bench.learning.first_steps day29 --steps 4`; resnet50, cifar stem, batch 16, "
    )
    assert "chance 3.434, 2.0 s a step, 5.0 GB of memory; " in lines[5]  # log 31


def test_a_training_that_ends_too_early_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with code 3 before step 2"):
        first_steps.train([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, 2)


def test_a_training_that_ends_between_two_looks_has_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [[], [{"step": 1}, {"step": 2}]]

    looked = tmp_path / "looked"  # until then the process waits

    def late(folder: Path) -> list[dict[str, int]]:
        looked.touch()
        time.sleep(1.0)  # meanwhile the process has ended
        return looks.pop(0)

    monkeypatch.setattr(first_steps.results, "read_metrics", late)
    program = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists():\n    time.sleep(0.01)"
    first_steps.train([sys.executable, "-c", program, str(looked)], tmp_path, 2)
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
    first_steps.train([sys.executable, "-c", code], tmp_path, 2)
    assert (tmp_path / "ended").exists()
    assert 2 <= len((tmp_path / "metrics.jsonl").read_text().splitlines()) < 99
