"""Tests data sets that a user gives as arrays or `tf.data.Dataset`s, with or without labels and test images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.api.memory import load_from_memory
from lowlevel_simclr.data.dataset import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
LABELS = np.arange(20) % 3
Dataset = tf.data.Dataset


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("x", "y"), ("img", "target")])
def test_dictionaries_are_taken_by_their_keys(image: str, label: str, batched: bool) -> None:
    """Test data sets whose elements are dictionaries, like those of `tfds.load`.

    Images and labels must be found under several usual keys. Other keys must be ignored.
    """
    stream = Dataset.from_tensor_slices({"id": LABELS, image: IMAGES, label: LABELS})
    found, wanted = load_from_memory(stream.batch(7) if batched else stream), load_from_memory((IMAGES, LABELS))
    np.testing.assert_array_equal(found.train.images, wanted.train.images)
    np.testing.assert_array_equal(found.test.labels, wanted.test.labels)
    assert found.name == wanted.name and found.classes == ("0", "1", "2")
    assert set(load_from_memory(Dataset.from_tensor_slices({image: IMAGES})).train.labels) == {-1}


@pytest.mark.parametrize(
    "given",
    [
        ((IMAGES[:15], LABELS[:15]), (IMAGES[15:], LABELS[15:])),  # as Keras's load_data returns them
        [[IMAGES[:15], LABELS[:15, None]], [IMAGES[15:], LABELS[15:, None]]],
        tuple(Dataset.from_tensor_slices((IMAGES[part], LABELS[part])) for part in (slice(15), slice(15, None))),
        ((IMAGES[:15], LABELS[:15]), (tf.constant(IMAGES[15:]), LABELS[15:])),
    ],
)
def test_two_splits_stay_two_splits(given: Any) -> None:
    found = load_from_memory(given)
    np.testing.assert_array_equal(found.train.images, IMAGES[:15])
    np.testing.assert_array_equal(found.test.images, IMAGES[15:])
    assert found.train.labels.tolist() == LABELS[:15].tolist() and found.test.labels.tolist() == LABELS[15:].tolist()


def test_the_name_follows_the_images_and_the_splits() -> None:
    def name(border: int, images: np.ndarray = IMAGES) -> str:
        return load_from_memory(((images[:border], LABELS[:border]), (images[border:], LABELS[border:]))).name

    assert (
        name(15) == name(15) and len({name(15), name(14), name(15, IMAGES[::-1]), load_from_memory(IMAGES).name}) == 4
    )


def test_a_class_has_one_number_in_both_splits() -> None:
    found = load_from_memory(((IMAGES[:15], LABELS[:15] * 100), (IMAGES[15:], np.full(5, 200))))
    assert found.classes == ("0", "100", "200") and found.test.labels.tolist() == [2] * 5


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ((IMAGES, LABELS), (IMAGES[:, :4], LABELS)),
            r"train on have shape \(8, 8, 3\), and those to hold out \(4, 8, 3",
        ),
        (((IMAGES, LABELS), (IMAGES, LABELS[:3])), "Give 20 whole numbers from 0"),
        (Dataset.from_tensor_slices({"pixels": IMAGES}), "the keys pixels. The image must be under one of image"),
        (Dataset.from_tensor_slices(["a.png"]), "encoded images, or their paths. Decode them with tf.io.decode_image"),
        (Dataset.from_tensor_slices(IMAGES / np.float32(255)), "are float32. Give uint8 .*convert_image_dtype"),
        (Dataset.from_tensor_slices((IMAGES, LABELS, LABELS)), r"Its elements must be image or \(image, label\)"),
    ],
)
def test_what_cannot_be_used_is_refused_before_it_is_read(given: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load_from_memory(given)
