"""Tests `load_dataset`, which loads a data set by its name: shapes, cifar10, folder:PATH and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data import catalog, dataset, shapes
from tests.support.image_files import make_names, write_pictures


def test_shapes_are_two_disjoint_splits() -> None:
    images = catalog.load_dataset("shapes", seed=3)
    drawn, labels = shapes.draw_shapes(6000, 3)
    np.testing.assert_array_equal(np.concatenate([images.train.images, images.test.images]), drawn)
    np.testing.assert_array_equal(np.concatenate([images.train.labels, images.test.labels]), labels)
    assert (len(images.train.images), len(images.test.images)) == (5000, 1000)
    assert images.classes == shapes.CLASSES


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(dataset.DataError, match="no data set 'mnist'. Use one of shapes, cifar10, cifar100, folder"):
        catalog.load_dataset("mnist")


@pytest.mark.parametrize("memory_limit", [4.0, 0.0])
def test_the_images_with_a_label_are_kept(tmp_path: Path, memory_limit: float) -> None:
    root = write_pictures(tmp_path, "train/0.png", *make_names("train/a", 3), *make_names("test/a", 2))
    images = catalog.load_dataset(f"folder:{root}", memory_limit=memory_limit)
    kept = catalog.keep_labelled(images)
    np.testing.assert_array_equal(np.asarray(kept.train.images), np.asarray(images.train.images)[1:])
    assert list(kept.train.labels) == [0, 0, 0] and kept.test is images.test
    assert catalog.is_streamed(kept) == (memory_limit == 0)
