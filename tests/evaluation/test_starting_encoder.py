"""Tests that a new training can start with the encoder of an earlier training (--weights)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.config.identity import replace, to_dict
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.evaluation.starting_encoder import build_starting_encoder, describe_start, list_other_settings
from lowlevel_simclr.model import encoder
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras
from tests.support.small_runs import narrow_resnet20

SHAPE = ("resnet20", "cifar", 8, 3)


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_resnet20(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Write a run that was stopped after 2 of 5 steps. Its encoder has the random initial weights of seed 7."""
    variables = keras.name_variables("encoder", encoder.build_encoder(*SHAPE, seed=7))
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    checkpoint.save(tmp_path / "run" / "checkpoints", 2, {**arrays, "projection/0": np.zeros(3)}, {}, keep=1)
    config = to_dict(replace(load_preset("shapes"), input_mean=(0.5,), input_std=(0.25,)))
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"steps": 5}))
    return tmp_path / "run"


def test_the_weights_are_those_of_the_run(run: Path) -> None:
    ours = build_starting_encoder(*SHAPE, str(run), 1).get_weights()
    theirs, others = (encoder.build_encoder(*SHAPE, seed=seed).get_weights() for seed in (7, 1))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))
    assert not all(np.array_equal(a, b) for a, b in zip(ours, others))
    plain = build_starting_encoder(*SHAPE, "random", 1).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(plain, others))


def test_what_is_taken_is_said(run: Path) -> None:
    assert describe_start("random") == ""
    assert describe_start(str(run)) == (
        f"the encoder of {run} at step 2; projection head, optimizer and schedule are new. The training has not ended: "
        "these are the weights of step 2 of 5."
    )


def test_settings_that_must_be_those_of_the_run_are_listed(run: Path) -> None:
    model = to_dict(replace(load_preset("shapes"), stem="imagenet", projection_widths=(3,)))["model"]
    assert list_other_settings(str(run), model) == {"stem": "cifar", "input_mean": [0.5], "input_std": [0.25]}
    assert list_other_settings("imagenet", model) == {}


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (("resnet18", "cifar", 8, 3), "do not fit resnet18 with the cifar stem and 3 channels"),
        (("resnet20", "cifar", 8, 1), "do not fit resnet20 with the cifar stem and 1 channels"),
    ],
)
def test_another_encoder_is_refused(run: Path, shape: tuple[str, str, int, int], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_starting_encoder(*shape, str(run), 0)


def test_a_run_without_weights_is_refused(run: Path) -> None:
    file = next((run / "checkpoints").iterdir())
    file.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="The weights of the run .* cannot be read"):
        build_starting_encoder(*SHAPE, str(run), 0)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(ModelError, match="has no checkpoint yet. Train it first, or use other --weights"):
        build_starting_encoder(*SHAPE, str(run), 0)
