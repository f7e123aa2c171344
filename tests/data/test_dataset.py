"""Tests which images of a data set are kept for testing, and whether there are enough labels for a classifier."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lowlevel_simclr.data import dataset
from tests.support.labelled_images import make_striped_data_set, relabel


@pytest.mark.parametrize(("count", "held_out"), [(0, 0), (1, 0), (2, 1), (14, 1), (16, 2), (1000, 100)])
def test_a_tenth_is_held_out_and_one_at_least(count: int, held_out: int) -> None:
    chosen = dataset.choose_held_out(count, seed=3)
    assert (chosen.dtype, chosen.shape, chosen.sum()) == (bool, (count,), held_out)


def test_the_seed_decides_which_are_held_out() -> None:
    one, again, other = (dataset.choose_held_out(200, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_labels_are_two_classes_to_train_on_and_one_image_to_test() -> None:
    images = make_striped_data_set()
    assert dataset.has_labels(images)
    assert not dataset.has_labels(relabel(images, 1, images.test.labels))
    assert not dataset.has_labels(relabel(images, images.train.labels, dataset.UNLABELLED))
    without_test = dataclasses.replace(images, test=dataset.Split(images.test.images[:0], images.test.labels[:0]))
    assert not dataset.has_labels(without_test)


def test_images_without_a_label_are_counted_and_leave_the_rest_to_classify() -> None:
    images = make_striped_data_set()
    assert dataset.describe_unlabelled(images) == ""
    assert dataset.describe_unlabelled(relabel(images, -1, -1)) == ""
    stray = relabel(images, [-1, *images.train.labels[1:]], [-1, -1, *images.test.labels[2:]])
    assert dataset.has_labels(stray)
    assert list(dataset.find_labelled(stray.test)) == list(range(2, 30))
    assert dataset.describe_unlabelled(stray) == (
        "3 of 90 images have no label and are not evaluated (1 to train on, 2 held out)"
    )
    stray = relabel(images, images.train.labels, [-1, *images.test.labels[1:]])
    assert dataset.describe_unlabelled(stray) == (
        "1 of 90 images has no label and is not evaluated (0 to train on, 1 held out)"
    )
