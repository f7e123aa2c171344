"""Tests --config FILE, which reads settings from the file of an earlier run.

Also tests the hints if a user gives a setting the name that it has in other programs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.fields import list_fields
from lowlevel_simclr.config.identity import replace, to_dict
from lowlevel_simclr.config.other_names import OTHER_NAMES, suggest_name
from lowlevel_simclr.config.presets import PRESETS, load_preset
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.config.starting_point import read_config_file, to_settings

RUN = ("out", "jitter-strength")  # flags of the command line, but not settings


@pytest.mark.parametrize("preset", PRESETS)
def test_the_config_of_a_run_is_a_starting_point(tmp_path: Path, preset: str) -> None:
    config = replace(load_preset(preset), temperature=0.77, seed=3)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(config)))
    assert read_config_file(file) == config
    assert parse_run(["--config", str(file)])[0] == config
    given = parse_run(["--config", str(file), "--temperature", "0.5"])[0]
    assert given == replace(config, temperature=0.5)


def test_what_a_file_leaves_out_has_the_value_of_its_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"preset": "solo", "loss": {"temperature": 0.5}}))
    assert read_config_file(file) == replace(load_preset("solo"), temperature=0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"loss": {"tau": 1}}', "There is no setting 'loss.tau'"),
        ('{"loss": {"temperature": "warm"}}', "--temperature is warm"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        parse_run(["--config", str(file)])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and sentence in said and f"--config {file}" in said


def test_a_preset_and_a_file_are_refused_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_run(["--config", "config.json", "--preset", "solo"])
    assert "Give only one" in capsys.readouterr().err


@pytest.mark.parametrize("other", OTHER_NAMES)
def test_another_name_suggests_a_setting_that_there_is(other: str) -> None:
    ours = OTHER_NAMES[other]
    assert ours in RUN or ours.replace("-", "_") in list_fields()
    assert other.replace("-", "_") not in list_fields()


def test_common_names_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, ours in (("--lr", "--learning-rate"), ("--bs", "--batch-size"), ("--tau", "--temperature")):
        with pytest.raises(SystemExit):
            parse_run([flag, "1"])
        assert f"Unknown argument {flag}. Did you mean {ours}?" in capsys.readouterr().err
    assert suggest_name("wd", list_fields()) == " Did you mean weight_decay?"
    assert suggest_name("--lr", ["--seeds"]) == ""


def test_the_settings_of_a_config_are_those_that_train_takes() -> None:
    config = replace(load_preset("solo"), temperature=0.5)
    settings = to_settings(config)
    assert settings["temperature"] == 0.5 and settings["preset"] == "solo" and settings["dataset"] == "cifar10"
    values = {name: value for name, value in settings.items() if name != "preset"}
    assert replace(load_preset(settings["preset"]), **values) == config


def test_a_file_that_hangs_or_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    for name in ("fifo", "zero", "sparse"):
        with pytest.raises(ConfigError, match=f"{name} is not a regular file of at most 1048576 bytes .LARGEST_CONFIG"):
            read_config_file(tmp_path / name)
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="deep is not JSON"):
        read_config_file(tmp_path / "deep")
