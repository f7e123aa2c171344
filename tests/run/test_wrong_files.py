"""Tests files of a training run that have wrong content: each must give a one-sentence error, not a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lowlevel_simclr.run import results
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import open_run
from tests.support.open_runs import CONFIG, compare_temperature


def put(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


WRONG = {
    "nothing in it": put(b""),
    "half of it": put(b'{"step": 4, "knn'),
    "a list": put(b"[1, 2]"),
    "a number": put(b"5"),
    "null": put(b"null"),
    "a hundred thousand levels": put(b"[" * 100_000 + b"]" * 100_000),
    "a hundred thousand objects": put(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "bytes that are not text": put(bytes(range(256))),
    "an infinite number": put(b'{"a": {"b": [null, 1e999]}}'),
    "a word for a number": put(b'{"a": NaN}'),
    "a picture": put(b"\x89PNG\r\n\x1a\n" + bytes(64)),
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
wrong = pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)


@wrong
def test_config(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "config.json")
    with pytest.raises(RunError, match="config.json"):
        results.read_config(tmp_path)
    with pytest.raises(RunError, match="config.json"):
        open_run(tmp_path, CONFIG, compare_temperature())


@wrong
def test_environment_is_set_aside(tmp_path: Path, make: Callable[[Path], object]) -> None:
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        make(tmp_path / "environment.json")
        run.write_environment({"precision": "float32"})
        assert json.loads((tmp_path / "environment.json").read_text())["precision"] == "float32"
        assert os.path.lexists(tmp_path / "environment.json.damaged")


@pytest.mark.parametrize("earlier", [5, "text", {"a": 1}, None])
def test_environment_with_a_list_of_sessions_that_is_not_one(tmp_path: Path, earlier: object) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"python": "3.10.1", "earlier": earlier}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        run.write_environment({})
    assert json.loads((tmp_path / "environment.json").read_text())["earlier"] == [{"python": "3.10.1"}]


@wrong
def test_peak_memory_is_written_although_the_environment_is_damaged(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        make(tmp_path / "environment.json")
        run.write_peak_memory()
    assert "peak_memory_bytes" in json.loads((tmp_path / "environment.json").read_text())


@wrong
def test_data(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "data.json")
    with pytest.raises(RunError, match="data.json"):
        results.read_data(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"shape": [8, 8]},
        {"shape": "8x8"},
        {"shape": [8, 8, -3]},
        {"shape": [8, 8, 3.0]},
        {"counts": [1, 2]},
        {"counts": {"train": "many"}},
        {"classes": "cat"},
        {"classes": [1, 2]},
        {"skipped": 3},
        {"dataset": ["shapes"]},
    ],
)
def test_data_with_another_type(tmp_path: Path, content: object) -> None:
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="data.json is damaged"):
        results.read_data(tmp_path)


@wrong
def test_evaluation_is_set_aside_for_the_new_one(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "evaluation.json")
    with pytest.raises(RunError, match="evaluation.json"):
        results.read_evaluation(tmp_path)
    assert results.merge_evaluation(tmp_path / results.EVALUATION, 4, {"linear": 0.5}) == {"linear": 0.5, "step": 4}
    assert results.read_evaluation(tmp_path) == {"linear": 0.5, "step": 4}
    assert os.path.lexists(tmp_path / "evaluation.json.damaged")


@pytest.mark.parametrize(
    "content",
    [
        {"step": "four"},
        {"step": -1},
        {"step": True},
        {"step": 4, "knn": 0.5},
        {"step": 4, "knn": {"twenty": 0.5}},
        {"step": 4, "knn_untrained": {"20": "high"}},
        {"step": 4, "linear": [0.5]},
        {"step": 4, "finetune": {"a tenth": 0.5}},
        {"step": 4, "finetune": {"nan": 0.5}},
        {"step": 4, "seeds": {"linear": 5}},
        {"step": 4, "seeds": {"linear": {"mean": "x", "std": None, "n": 3}}},
        {"step": 4, "notes": ["a"]},
        {"step": 4, "transform": 7},
    ],
)
def test_evaluation_with_another_type(tmp_path: Path, content: object) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="evaluation.json is damaged"):
        results.read_evaluation(tmp_path)
    assert results.merge_evaluation(tmp_path / results.EVALUATION, 4, {"linear": 0.5}) == {"linear": 0.5, "step": 4}
    assert json.loads((tmp_path / "evaluation.json.damaged").read_text()) == content


def test_a_whole_evaluation_is_no_damage(tmp_path: Path) -> None:
    spread = {"mean": 0.5, "std": None, "n": 1}
    whole = {
        "schema": 1,
        "train_on": "train",
        "knn": {"20": 0.5, "200": 0.25},
        "linear": 0.5,
        "linear_augmented": 0.5,
        "finetune": {"0.01": 0.1},
        "seeds": {"linear": spread, "finetune": {"0.01": {**spread, "recipe": {"steps": 3}}}},
        "notes": {"knn": "only 20 train images"},
        "transform": "scaled",
        "step": 4,
    }
    assert results.merge_evaluation(tmp_path / results.EVALUATION, 4, whole) == whole
    assert results.read_evaluation(tmp_path) == whole


@pytest.mark.parametrize("kind", ["a folder", "a FIFO", "a device"])
def test_metrics(tmp_path: Path, kind: str) -> None:
    with open_run(tmp_path, CONFIG, compare_temperature()) as run:
        WRONG[kind](tmp_path / results.METRICS)
        for act in (lambda: results.read_metrics(tmp_path), lambda: run.cut_metrics(3)):
            with pytest.raises(RunError, match="metrics"):
                act()


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"step": 2, "loss": NaN}', b'{"step": 2, "loss": "low"}', b'{"step": 2, "loss": [1]}', b"\xff"],
)
def test_a_row_of_metrics_is_numbers(line: bytes) -> None:
    assert results.parse_row(line) is None
    assert results.parse_row(b'{"step": 2, "loss": 1.5, "knn": null}') == {"step": 2, "loss": 1.5, "knn": None}
