"""Tests of runs on pictures as people have them: names of every kind, links, few images, arrays of any channels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import embed, train
from tests.support.image_files import make_names, write_pictures
from tests.support.small_runs import narrow_resnet20

ROOT = Path(__file__).parents[2]
SMALL = ["--image-size", "8", "--batch-size", "8", "--projection-widths", "8", "--warmup-epochs", "0", "--steps", "2"]
SMALL += ["--knn-every", "0", "--precision", "float32", "--xla", "off"]
PICTURES = {"views.png", "learning.png", "embedding.png", "neighbours.png"}
JAPANESE = "\u65e5\u672c\u8a9e"
ODD_NAMES = ["$0_$100", "$100_$200", r"\frac{a}^b", "two\nlines", os.fsdecode(b"caf\xe9"), JAPANESE, "_hidden"]


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a ResNet with only one block in each stage, so that a run takes seconds."""
    narrow_resnet20(monkeypatch)


def run(dataset: str, out: Path, *flags: str) -> int:
    return train.main([*SMALL, "--dataset", dataset, "--out", str(out), *flags])


def list_pictures(out: Path) -> set[str]:
    return {path.name for path in (out / "plots").glob("*.png")}


def test_classes_of_any_name_train_and_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test names that are formulas to Matplotlib, have a line break, or are not text.

    Once, a run on the folders `$0_$100` and `$100_$200` trained for hours and then failed in a picture.
    """
    root, out = tmp_path / "pictures", tmp_path / JAPANESE
    for name in ODD_NAMES:
        write_pictures(root, *make_names(name, 4))
    write_pictures(root, f"{ODD_NAMES[0]}/" + os.fsdecode(b"\xff.png"))
    assert run(f"folder:{root}", out) == 0
    said = capsys.readouterr()
    assert "warning" not in said.err and "7 classes" in said.out
    assert all(line.isprintable() for line in said.out.splitlines())
    assert list_pictures(out) == PICTURES and (out / "report.html").is_file()
    assert json.loads((out / "data.json").read_text())["classes"] == sorted(ODD_NAMES)
    assert embed.main([str(out), str(root), "--out", str(tmp_path / f"{JAPANESE}.npz")]) == 0
    assert len(np.load(tmp_path / f"{JAPANESE}.npz")["h"]) == 4 * len(ODD_NAMES) + 1


@pytest.mark.slow
def test_an_ascii_terminal_shows_any_name(tmp_path: Path) -> None:
    """Test a terminal that can print ASCII only. Once, a Japanese name ended the run with a UnicodeEncodeError."""
    root = write_pictures(tmp_path / "pictures", *make_names(JAPANESE, 12), *make_names("cat", 12))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    flags = [*SMALL, "--dataset", f"folder:{root}", "--out", f"{tmp_path}/{JAPANESE}"]
    done = subprocess.run(
        [sys.executable, "-m", "lowlevel_simclr.train", *flags],
        cwd=ROOT,
        env={**os.environ, **plain},
        capture_output=True,
        check=True,
        timeout=600,
    )
    assert done.stdout.isascii() and b"Traceback" not in done.stderr and b"warning" not in done.stderr
    assert list_pictures(tmp_path / JAPANESE) == PICTURES


@pytest.mark.parametrize(
    "channels", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_arrays_of_any_channels_with_ids_as_labels_train_and_are_drawn(
    tmp_path: Path, channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test arrays. Once, two channels failed in views.png, and the label 1234567 made as many classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 16, 16, channels), np.uint8)
    ids = np.array([3, 47219, 2**64 - 1], np.uint64)[np.arange(40) % 3]
    np.savez(tmp_path / "images.npz", images=images, labels=ids)
    assert run(f"npz:{tmp_path}/images.npz", tmp_path / "run") == 0
    said = capsys.readouterr()
    assert "warning" not in said.err and "36 images to train on, 3 classes" in said.out
    assert list_pictures(tmp_path / "run") == PICTURES
    data = tmp_path / "run/data.json"
    assert json.loads(data.read_text())["classes"] == ["3", "47219", str(2**64 - 1)] and data.stat().st_size < 1000


@pytest.mark.parametrize("count", [3, 8])
def test_few_images_are_previewed(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pictures(tmp_path / "pictures", *make_names("a", count))
    assert run(f"folder:{root}", tmp_path / "run", "--batch-size", "2", "--preview") == 0
    assert f"Drew the views of {count - 1} images" in capsys.readouterr().out
    assert list_pictures(tmp_path / "run") == {"views.png"}


def test_one_image_with_a_label_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 16, 16, 3), np.uint8), labels=np.array([3]))
    assert run(f"npz:{tmp_path}/one.npz", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "There is only 1 image to train on" in said and not (tmp_path / "run").exists()
