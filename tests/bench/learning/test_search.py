"""Tests the search for the training settings that learn most in a given training time.

A trial trains with one choice of settings, and every trial has the same time. Every trial must have valid settings. A
search that was stopped must continue when it is started again. The page of results must show every trial.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bench.learning import search, trial
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.config.validation import validate
from tests.support.labelled_images import make_striped_data_set


def test_every_trial_is_a_valid_run_with_a_name_of_its_own() -> None:
    trials = search.list_trials()
    assert len({each.name for each in trials}) == len(trials)
    for each in trials:
        validate(replace(load_preset("cifar10-resnet20"), **each.settings))


def test_a_search_continues_where_it_stopped_and_writes_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def run_trial(each: search.Trial, *_: object) -> dict[str, Any]:
        made.append(each.name)
        names = ("knn", "knn_whole", "knn_ema", "knn_renewed_statistics", "knn_two_stages")
        return {"steps": 1234, "pairs": 157952, **dict.fromkeys(names, 0.5)}

    monkeypatch.setattr(search, "run_trial", run_trial)
    monkeypatch.setattr(search, "TABLE", tmp_path / "SEARCH.md")
    wanted = ["--data-dir", "d", "--seconds", "60", "--json", str(tmp_path / "search.json")]
    search.main([*wanted, "--only", "crop area"])
    assert made == ["crop area: 0.2"]
    search.main([*wanted, "--at-once", "2"])
    assert len(made) == len(set(made)) == len(search.list_trials())
    page = (tmp_path / "SEARCH.md").read_text()
    assert "| crop area | 0.2 | 0 | 1,234 | 157,952 | 50.0% | 50.0% | 50.0% | 50.0% | 50.0% |" in page
    assert len(json.loads((tmp_path / "search.json").read_text())["trials"]) == len(made)


@pytest.mark.skipif(len(search.list_cores()) < 2, reason="needs two cores")
def test_trials_that_run_at_the_same_time_have_a_core_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, cores = threading.Barrier(2), []

    def run_trial(_: search.Trial, __: float, ___: str, ____: int, given: list[int]) -> dict[str, Any]:
        both.wait(10)  # both trials are running
        cores.append(given)
        both.wait(10)
        return {"knn": 0.5}

    monkeypatch.setattr(search, "run_trial", run_trial)
    trials = [(each, 0) for each in search.list_trials()[:2]]
    search.run_trials(trials, 60, "d", tmp_path / "search.json", at_once=2)
    assert sorted(cores) == [[core] for core in search.list_cores()[:2]]


def test_a_table_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no trials. Run without --table first"):
        search.main(["--table", "--json", str(tmp_path / "none.json")])


def test_held_out_images_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "HELD_OUT", 4)
    images = make_striped_data_set(20)
    parts = trial.split_train(images)
    assert len(parts.test.labels) == 4 and len(parts.train.labels) == len(images.train.labels) - 4
    together = np.concatenate([parts.train.images, parts.test.images])
    assert sorted(each.tobytes() for each in together) == sorted(each.tobytes() for each in images.train.images)


def test_an_average_moves_towards_the_weights() -> None:
    model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0]], np.float32)])
    average = trial.Average(model, 0.5)
    model.set_weights([np.array([[3.0]], np.float32)])
    average.update(2)
    assert average.weights[0].item() == pytest.approx(0.25 * 1 + 0.75 * 3)
