"""Tests that invalid settings raise an error, whether they come from flags, from a file or from Python."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.config.validation import validate


def test_a_warm_up_is_not_held_against_epochs_that_steps_override():
    config, _ = parse_run(["--epochs", "2", "--warmup-epochs", "3", "--steps", "500"])
    assert config.train.steps == 500


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"dataset": "folder:"}, "--dataset folder: needs a path. Use folder:PATH"),
        ({"dataset": "mnist"}, "There is no --dataset 'mnist'."),
        ({"weights": "imagenet"}, "--weights imagenet needs --encoder resnet50, but"),
        ({"weights": "imagnet"}, "The name of a file or of a run folder must contain a / or a dot"),
        ({"epochs": 2, "warmup_epochs": 3.0}, "--warmup-epochs (3.0) is larger than --epochs (2). Use 2 or less"),
        ({"input_mean": (0.5, 0.5), "input_std": (0.5,)}, "Give both, with one number per channel"),
        ({"micro_batch": "some"}, "--micro-batch is some"),
        (
            {"batch_size": 100, "micro_batch": "48"},
            "--micro-batch (48) does not divide --batch-size (100). Use a divisor of 100",
        ),
        ({"devices": "cpu:0"}, "--devices is cpu:0"),
        ({"temperature": 0.0}, "--temperature is 0.0"),
    ],
)
def test_a_configuration_that_was_not_typed_is_refused_too(changed: dict[str, Any], sentence: str) -> None:
    config = replace(Config(), **changed)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        validate(config)


def test_the_defaults_can_be_trained() -> None:
    config = Config()
    validate(config)
    validate(replace(config, batch_size=96, micro_batch="48", devices="cpu:2", weights="./f.weights.h5"))
    assert config == Config()
