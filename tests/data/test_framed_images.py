"""Tests data sets whose images have different sizes. Each image is stored in an array of one common size, with padding.

Such an array is called a canvas, and the part of it that the image fills is called a frame. Training gets the canvases
and the sizes of the frames. An evaluation gets the square in the middle of each frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data import batches, catalog
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.framed_images import FramedImages, get_canvases
from tests.support.image_files import write_pictures

SIZES = [(20 + number, 50 - number) for number in range(24)]


def load(root: Path, **options: Any) -> DataSet:
    """Write pictures of many sizes in two classes, and one picture without a label. Load them as a data set."""
    for number, (height, width) in enumerate(SIZES):
        split, label = ("train", "test")[number >= 18], ("a/", "b/", "")[2 if number == 5 else number % 2]
        write_pictures(root, f"{split}/{label}{number:02d}.png", height=height, width=width)
    return catalog.load_dataset(f"folder:{root}", **options)


KINDS = pytest.mark.parametrize("kind", ["memory", "streamed", "packed", "packed in memory"])


def load_kind(root: Path, kind: str) -> DataSet:
    options: dict[str, Any] = {"memory_limit": 0.0} if kind in ("streamed", "packed") else {}
    cache = {"cache": str(root / "cache")} if kind.startswith("packed") else {}
    return load(root / "images", **options, **cache)


@KINDS
def test_every_kind_holds_the_same_images(tmp_path: Path, kind: str) -> None:
    one, other = load(tmp_path / "plain").train.images, load_kind(tmp_path, kind).train.images
    rows = np.array([[3, 1], [0, 17]])
    for few, same in ((one, other), (one[4:9], other[4:9]), (one.select_rows(rows[0]), other.select_rows(rows[0]))):
        assert isinstance(same, FramedImages) and same.shape == few.shape
        np.testing.assert_array_equal(np.asarray(same.canvases), few.canvases)
        np.testing.assert_array_equal(same.sizes, few.sizes)
        np.testing.assert_array_equal(np.asarray(same), np.asarray(few))
    assert other[rows].shape == (2, 2, *other.shape[1:])
    np.testing.assert_array_equal(other[rows][1, 0], other[np.array([0])][0])


@KINDS
def test_batches_carry_the_size_of_each_image(tmp_path: Path, kind: str) -> None:
    images = load_kind(tmp_path, kind).train.images
    canvases = np.asarray(get_canvases(images))
    rows = list(batches.make_batches(images, 5, 3, 1, 7))
    assert len(rows) == 6
    for _, index, pixels, sizes in rows:
        np.testing.assert_array_equal(pixels, canvases[index])
        np.testing.assert_array_equal(sizes, images.sizes[index])
    spec = batches.make_batches(images, 5, 3, 1, 7, np.array([4, 2])).element_spec
    assert [tuple(each.shape) for each in spec] == [(), (2,), (2, *canvases.shape[1:]), (2, 2)]
    assert spec[3].dtype == tf.int32


def test_images_on_the_device_carry_their_sizes(tmp_path: Path) -> None:
    images = load(tmp_path).train.images
    fetch = batches.keep_on_device(images, on_gpu=False)
    here = batches.make_batches(images, 5, 3, 0, 4, with_images=False)
    for lean, full in zip(here, batches.make_batches(images, 5, 3, 0, 4)):
        for one, other in zip(fetch(*lean), full, strict=True):
            np.testing.assert_array_equal(one, other)
    assert images.nbytes == images.canvases.nbytes


@KINDS
def test_all_images_and_labelled_images_keep_their_frames(tmp_path: Path, kind: str) -> None:
    images = load_kind(tmp_path, kind)
    train, test = images.train.images, images.test.images
    everything = catalog.select_training_images(images, "all")
    np.testing.assert_array_equal(everything.sizes, np.concatenate([train.sizes, test.sizes]))
    np.testing.assert_array_equal(
        np.asarray(everything.canvases), np.concatenate([np.asarray(train.canvases), np.asarray(test.canvases)])
    )
    kept = catalog.keep_labelled(images).train
    assert len(kept.images) == len(kept.labels) == 17
    np.testing.assert_array_equal(kept.images.sizes, train.sizes[images.train.labels >= 0])
    assert catalog.is_streamed(images) == (kind in ("streamed", "packed"))
    assert bool(catalog.describe_streaming(images)) == catalog.is_streamed(images)


def test_packed_images_of_other_bounds_are_another_file(tmp_path: Path) -> None:
    """Test two limits for the sides of an image (bounds) that happen to give canvases of equal size.

    The images in the canvases have different sizes. So each limit needs its own file of decoded images.
    """
    cache = tmp_path / "cache"
    first = load(tmp_path / "images", cache=str(cache))
    before = json.loads(json.dumps(first.record))
    before["frames"]["shorter"], before["shape"] = 15, [15, 15, 3]
    other = catalog.load_dataset(f"folder:{tmp_path / 'images'}", cache=str(cache), before=before)
    assert other.train.images.canvases.shape == first.train.images.canvases.shape
    assert len(list(cache.glob("*.pixels"))) == 2
    assert not np.array_equal(other.train.images.canvases, first.train.images.canvases)
