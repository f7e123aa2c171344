"""A data set: two splits of uint8 images with labels, the class names, and a record of what was read.

`catalog.py` loads data sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from lowlevel_simclr.config.names import OneLineError

UNLABELLED = -1  # the label of an image that has none
MOST_CLASSES = 1_000_000  # a label of 2^62 would make as many class names
HELD_OUT = 0.1  # share of the images, if there is no test split


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

    images: Any  # of type Images; ndarray's type stubs do not match that protocol
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A named data set.

    Attributes:
        name: name of the data set, such as 'cifar10'.
        train: the split to train on.
        test: the split that is held out.
        classes: the name of each class number.
        record: entries of data.json that this data set adds or replaces.
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
        (count,) bool, True for each held-out image. These are a tenth of the images, and at least one if there are two.
    """
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: max(1, round(HELD_OUT * count))]] = count > 1
    return chosen


def has_labels(images: DataSet) -> bool:
    """Return whether there is anything to classify.

    Every image of both splits needs a label, the test split must not be empty, and the train split needs two classes.
    """
    labels = np.concatenate([images.train.labels, images.test.labels])
    return bool(len(images.test.labels) and labels.min() >= 0 and len(np.unique(images.train.labels)) > 1)
