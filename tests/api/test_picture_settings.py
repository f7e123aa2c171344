"""Tests the settings that training chooses by the size and the number of the images, if the user does not give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.api.picture_settings import choose_for_pictures
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.config.settings import Config
from tests.support.image_files import make_names, make_run_folder, write_pictures


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has a GPU."""
    monkeypatch.setattr("lowlevel_simclr.api.picture_settings.finds_gpu", lambda: True)


def choose(root: Path, *flags: str) -> Config:
    config, options = parse_run(["--dataset", f"folder:{root}", "--out", str(root / "run"), *flags])
    return choose_for_pictures(config, options.given, options.out, options.fresh)


@pytest.mark.parametrize(
    ("height", "width", "preset", "size", "stem"),
    [
        (32, 32, "cifar10-resnet20", 20, "cifar"),
        (47, 90, "cifar10-resnet20", 20, "cifar"),
        (48, 64, "pictures-64", 64, "imagenet"),
        (111, 111, "pictures-64", 64, "imagenet"),
        (375, 500, "pictures-128", 128, "imagenet"),
    ],
)
def test_the_shorter_side_chooses_the_preset_and_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], height: int, width: int, preset: str, size: int, stem: str
) -> None:
    """Test that large images get other settings than small ones, and that this is printed.

    Otherwise a user would train on photographs of 20 x 20 pixels without noticing.
    """
    write_pictures(tmp_path, *make_names("a", 40), height=height, width=width)
    found = choose(tmp_path)
    assert (found.preset, found.model.image_size, found.model.stem) == (preset, size, stem)
    assert found.train.batch_size == 32 and found.data.dataset == f"folder:{tmp_path}"
    said = capsys.readouterr().out
    assert f"preset {preset}, because the shorter side of the images has {min(height, width)} pixels" in said
    assert f"views of {size} pixels, 32 of 36 images per step" in said and "--encoder, --stem, --image-size" in said


def test_without_a_gpu_photographs_get_views_that_a_processor_can_pay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowlevel_simclr.api.picture_settings.finds_gpu", lambda: False)
    write_pictures(tmp_path, *make_names("a", 40), height=375, width=500)
    assert choose(tmp_path).preset == "pictures-64"
    assert "has 375 pixels (median) and there is no GPU" in capsys.readouterr().out


def test_a_batch_larger_than_the_data_is_not_a_part_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test a batch that is refused later. Once, the line said "64 of 18 images per step"."""
    choose(write_pictures(tmp_path, *make_names("a", 20)), "--batch-size", "64")
    assert "pixels, 64 images per step" in capsys.readouterr().out


def test_what_the_user_gives_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, *make_names("a", 40), height=130, width=130)
    found = choose(tmp_path, "--image-size", "96", "--batch-size", "9")
    assert (found.preset, found.model.image_size, found.train.batch_size) == ("pictures-128", 96, 9)
    capsys.readouterr()
    assert choose(tmp_path, "--preset", "cifar10-resnet20").model.image_size == 20
    assert capsys.readouterr().out == ""


def test_a_run_keeps_its_preset(tmp_path: Path) -> None:
    """Test that a run resumes with its own preset, even if this version of the package would choose another one."""
    write_pictures(tmp_path, *make_names("a", 40), height=130, width=130)
    path = make_run_folder(tmp_path / "run") / "config.json"
    path.write_text(path.read_text().replace('"preset": "custom"', '"preset": "cifar10-resnet20"'))
    assert choose(tmp_path).preset == "cifar10-resnet20"
    assert choose(tmp_path, "--fresh").preset == "pictures-128"


def test_images_that_cannot_be_read_choose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"")
    assert choose(tmp_path).preset == "cifar10-resnet20" and capsys.readouterr().out == ""


def test_another_data_set_is_left_alone() -> None:
    given: dict[str, Any] = {}
    assert choose_for_pictures(Config(), given, Path("run")) == Config()
