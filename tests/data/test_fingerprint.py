"""Tests the fingerprint (hash) of a data set. Processes that train together compare it to see whether they differ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data import catalog, fingerprint
from lowlevel_simclr.data.dataset import DataSet, Split
from tests.support.image_files import draw_picture, make_names, write_pictures


def some(count: int = 6) -> DataSet:
    """Return a data set in memory, with images for training and for testing."""
    pixels = np.random.default_rng(0).integers(0, 256, (count + 3, 8, 8, 3), np.uint8)
    labels = np.arange(count + 3) % 2
    train, test = Split(pixels[:count], labels[:count]), Split(pixels[count:], labels[count:])
    return DataSet("npz:x.npz", train, test, ("a", "b"))


def with_other_pixel(images: DataSet) -> DataSet:
    pixels = images.train.images.copy()
    pixels[-1, -1, -1, -1] ^= 1
    return dataclasses.replace(images, train=images.train._replace(images=pixels))


CHANGES: dict[str, Callable[[DataSet], DataSet]] = {
    "one bit of one pixel": with_other_pixel,
    "the order of the images": lambda images: dataclasses.replace(
        images, train=images.train._replace(images=images.train.images[::-1])
    ),
    "the labels": lambda images: dataclasses.replace(
        images, train=images.train._replace(labels=1 - images.train.labels)
    ),
    "the names of the classes": lambda images: dataclasses.replace(images, classes=("b", "a")),
    "the place of the cut between the splits": lambda images: some(5),
    "the test images": lambda images: dataclasses.replace(images, test=images.train),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_content_has_another_fingerprint(what: str) -> None:
    said = fingerprint.describe_content(some())
    assert said == fingerprint.describe_content(some()) and json.loads(json.dumps(said)) == said
    assert said != fingerprint.describe_content(CHANGES[what](some()))


def test_a_large_array_is_hashed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fingerprint.describe_content(some())
    monkeypatch.setattr(fingerprint, "_PIECE", 100)
    assert fingerprint.describe_content(some()) == whole


@pytest.mark.parametrize("memory_limit", [4.0, 0.0])
def test_a_folder_has_the_fingerprint_of_its_files(tmp_path: Path, memory_limit: float) -> None:
    """Test that the fingerprint is equal for images in memory and for images that are read during training.

    It must not depend on the path of the folder. Computing it must not read a file a second time.
    """

    def describe(name: str) -> dict[str, object]:
        images = catalog.load_dataset(f"folder:{tmp_path / name}", memory_limit=memory_limit)
        return fingerprint.describe_content(images)

    for name in "ab":
        write_pictures(tmp_path / name, *make_names("train/x", 5), *make_names("test/x", 2))
    assert describe("a") == describe("b")
    draw_picture(99).save(tmp_path / "b/train/x/03.png")
    assert describe("a") != describe("b")
