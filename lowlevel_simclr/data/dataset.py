"""A data set: two splits of uint8 images with labels, the class names, and a record of what was read.

`catalog.py` loads data sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from lowlevel_simclr.config.choices import SMALLEST_BATCH
from lowlevel_simclr.config.names import OneLineError

UNLABELLED = -1  # stands for a missing label
HELD_OUT = 0.1  # share of the images that is held out if there is no test split


class DataError(OneLineError, ValueError):
    """The data are missing, damaged or too few. The message says what to do."""


class Images(Protocol):
    """Images (n, H, W, C) uint8: a NumPy array, or files that are decoded when their rows are requested."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (n, H, W, C)."""

    def __len__(self) -> int:
        """Return n."""

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the images of a slice, or of an array of row numbers of any shape."""


class Split(NamedTuple):
    """Images (n, H, W, C) uint8 and their labels (n,) int64.

    A label is a class number from 0, or UNLABELLED (-1).
    """

    images: Any  # of type Images, but the type stubs of ndarray do not match that protocol
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A named data set.

    Attributes:
        name: name of the data set, such as 'cifar10'.
        train: the split to train on.
        test: the split that is held out.
        classes: the name of each class number.
        record: entries that this data set adds to data.json (a file in the run folder) or replaces there.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def choose_held_out(count: int, seed: int) -> np.ndarray:
    """Choose the images to hold out if the data set has no test split.

    Args:
        count: number of images.
        seed: seed of the choice.

    Returns:
        (count,) bool, True for each held-out image. A tenth of the images is held out, and at least one image if there
        are two or more.
    """
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: max(1, round(HELD_OUT * count))]] = count > 1
    return chosen


def number_classes(*labels: np.ndarray) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Return labels as class numbers from 0 without gaps, and the name of each class: its label as text.

    Labels may be numbers such as 47219. If the labels themselves were the class numbers, every table, picture and
    classifier would have many classes without an image.

    Args:
        labels: (n,) integers of any type, for each split. A negative number means that there is no label.

    Returns:
        The class numbers (n,) int64 of each split, in which UNLABELLED stands for no label, and the names.

    Examples:
        >>> number_classes(np.array([47219, 3]), np.array([3, -1]))
        ([array([1, 0]), array([ 0, -1])], ('3', '47219'))
    """
    kinds = [np.unique(each, return_inverse=True) for each in labels]
    # Python's integers, because NumPy would turn int64 and uint64 together into floats.
    ids = sorted({number for unique, _ in kinds for number in unique.tolist() if number >= 0})
    numbers = {label: number for number, label in enumerate(ids)}
    made = [
        np.array([numbers.get(number, UNLABELLED) for number in unique.tolist()], np.int64)[places.reshape(-1)]
        for unique, places in kinds
    ]
    return made, tuple(str(label) for label in ids)


def explain_too_few(count: int, where: str = "") -> str:
    """Return the message for a data set that is too small to train on.

    Args:
        count: number of images to train on.
        where: text for the message after "to train on", such as " in pictures".
    """
    found = "is only 1 image" if count == 1 else f"are {count} images"
    return (
        f"There {found} to train on{where}. The smallest set that works has {SMALLEST_BATCH} images to train on and 1 "
        "to test with."
    )


def has_labels(images: DataSet) -> bool:
    """Return whether there is anything to classify.

    At least one image of the test split must have a label, and the labels of the train split must have at least two
    classes. Images without a label are left out of every measurement.
    """
    train, test = (find_labelled(split) for split in (images.train, images.test))
    return bool(len(test) and len(np.unique(images.train.labels[train])) > 1)


def find_labelled(split: Split) -> np.ndarray:
    """Return the rows (m,) int64 of the images that have a label."""
    return np.flatnonzero(split.labels >= 0)


def describe_unlabelled(images: DataSet) -> str:
    """Return a text that says how many images have no label. It is empty if all images have a label, or none has."""
    missing = [int((split.labels < 0).sum()) for split in (images.train, images.test)]
    total = len(images.train.labels) + len(images.test.labels)
    if sum(missing) in (0, total):
        return ""
    what = "has no label and is" if sum(missing) == 1 else "have no label and are"
    return f"{sum(missing)} of {total} images {what} not evaluated ({missing[0]} to train on, {missing[1]} held out)"
