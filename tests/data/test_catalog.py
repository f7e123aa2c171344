"""Data sets are found by their names."""

from __future__ import annotations

import numpy as np
import pytest

from lowlevel_simclr.data import catalog, dataset, shapes


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
