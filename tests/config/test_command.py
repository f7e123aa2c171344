"""Tests the command line that a run stores to show how it can be repeated: it must give exactly the run's settings."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from lowlevel_simclr.config.command import write_command
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.identity import list_differences, replace, to_dict
from lowlevel_simclr.config.presets import PRESETS, load_preset
from lowlevel_simclr.config.settings import Config, ConfigError

ODD: dict[str, Any] = {
    "dataset": "folder:my pictures/$x",
    "data_dir": "/data/a b",
    "hue": (-1e-05, 0.2),
    "clip": False,
    "projection_widths": (8, 4),
    "precision": "float32",
    "steps": 7,
    "epochs": 3,
    "seed": 2**64 - 1,
    "input_mean": (0.5,),
    "input_std": (0.25,),
}


@pytest.mark.parametrize("preset", [*PRESETS, "custom"])
@pytest.mark.parametrize("changes", [{}, ODD], ids=["as it is", "odd values"])
def test_the_command_gives_the_settings_again(preset: str, changes: dict[str, Any]) -> None:
    base = load_preset(preset) if preset in PRESETS else Config()
    config = replace(base, **changes)
    words = shlex.split(write_command(to_dict(config), "runs/again"))
    assert words[:3] == ["python", "-m", "lowlevel_simclr.train"]
    parsed, options = parse_run(words[3:])
    assert list_differences(config, parsed) == [] and str(options.out) == "runs/again"
    assert parsed.data.data_dir == config.data.data_dir


def test_a_value_that_the_preset_has_and_the_run_lacks_needs_another_preset() -> None:
    config = replace(load_preset("solo"), input_mean=None, input_std=None)
    command = write_command(to_dict(config), "out")
    parsed, _ = parse_run(shlex.split(command)[3:])
    assert "--preset shapes" in command and list_differences(config, parsed) == []


def test_images_in_memory_need_a_call() -> None:
    config = replace(load_preset("shapes"), dataset="memory:ab12", temperature=0.5)
    call = write_command(to_dict(config), "runs/a'b")
    assert call == "lowlevel_simclr.train(images, \"runs/a'b\", preset='shapes', temperature=0.5)"


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="no setting 'train.sead'"):
        write_command({"train": {"sead": 1}}, "out")
