"""What a data set is: two splits of uint8 images with labels, the names of the classes, and a record of what was read.

Not here: reading any of them (`data.py` and below it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

UNLABELLED = -1
HELD_OUT = 0.1  # of the images, where there is no test split


class DataError(ValueError):
    """The data are missing, damaged or not enough; the text is one sentence that says what to do."""


class Images(Protocol):
    """Images uint8 (n, H, W, C): a NumPy array, or files that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W, C)."""

    def __len__(self) -> int:
        """n."""

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The images of some rows: a slice, or an array of any shape of row numbers."""


class Split(NamedTuple):
    """Images uint8 (n, H, W, C) and their labels int64 (n,), class numbers from 0, -1 where there is no label."""

    images: Any  # Images; NumPy's stubs are too precise for a protocol to match
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A named data set: what is trained on, what is held out, what the class numbers mean, what data.json says."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def choose_held_out(count: int, seed: int) -> np.ndarray:
    """Which of `count` images are held out where nobody said: (count,) bool, a tenth of them drawn by the seed.

    One at least, where there are two.
    """
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: max(1, round(HELD_OUT * count))]] = count > 1
    return chosen


def has_labels(images: DataSet) -> bool:
    """Whether there is anything to classify: labels on both splits, and two classes at least in the train split."""
    labels = np.concatenate([images.train.labels, images.test.labels])
    return bool(len(images.test.labels) and labels.min() >= 0 and len(np.unique(images.train.labels)) > 1)
