"""Chooses the images for a picture: one of each class before a second one of any class."""

from __future__ import annotations

import numpy as np


def choose_in_turn(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose images from each class in turn.

    Args:
        labels: (n,) class numbers. A negative number means that there is no label.
        count: the number of images to choose. If there are fewer, all are chosen.

    Returns:
        (min(n, count),) row numbers. If there is only one class, or no label, the images are spread evenly, because the
        first images of a folder are often alike.

    Examples:
        >>> choose_in_turn(np.array([0, 0, 0, 1, 2]), 4).tolist()
        [0, 3, 4, 1]
        >>> choose_in_turn(np.full(9, -1), 3).tolist()
        [0, 4, 8]
    """
    if len(np.unique(labels)) < 2:
        return np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).round().astype(np.int64))
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    turn = np.empty(len(order), np.int64)  # for each image, how many images of its class come before it
    turn[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.lexsort((labels, turn))[:count]
