"""Tests a run whose config.json has a value that this version of the package does not know. The error must name it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.api.stored import read_run_config
from lowlevel_simclr.config.identity import to_dict
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.run.atomic import RunError


def write_config(folder: Path, section: str, name: str, value: Any) -> None:
    values = to_dict(Config())
    assert name in values[section]
    values[section][name] = value
    (folder / "config.json").write_text(json.dumps(values))


def test_a_stored_configuration_is_read(tmp_path: Path) -> None:
    write_config(tmp_path, "train", "seed", 7)
    assert read_run_config(tmp_path).train.seed == 7


@pytest.mark.parametrize(
    ("section", "name", "value", "words"),
    [
        ("model", "encoder", "vit", "vit"),
        ("model", "encoder", 5, "5"),
        ("model", "encoder", None, "encoder"),
        ("train", "seed", -1, "-1"),
        ("train", "seed", "one", "one"),
        ("views", "crop_area", [0, 0], "crop"),
        ("views", "crop_area", [1], "crop"),
        ("views", "crop_area", "all", "crop"),
        ("model", "input_std", [0, 0, 0], "input-std"),
        ("model", "input_std", 0, "input"),
        ("loss", "temperature", 0, "temperature"),
        ("optimizer", "optimizer", "adagrad", "adagrad"),
    ],
)
def test_a_value_that_this_version_does_not_know_is_refused(
    tmp_path: Path, section: str, name: str, value: Any, words: str
) -> None:
    write_config(tmp_path, section, name, value)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(RunError, match="This version cannot read .*config.json: ") as told:
        read_run_config(tmp_path)
    assert words in str(told.value) and "\n" not in str(told.value)
    assert (tmp_path / "config.json").read_bytes() == before
