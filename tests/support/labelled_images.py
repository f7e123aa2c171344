"""Makes small data sets for tests of classifiers: images of stripes, which are easy, and clouds of points."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from lowlevel_simclr.data import cifar, dataset


def draw_images(count: int, size: int = 8, seed: int = 1) -> np.ndarray:
    """Return images (count, size, size, 3) of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def make_striped_data_set(train: int = 60, test: int = 30, classes: int = 3, size: int = 8) -> dataset.DataSet:
    """Return images whose class is the position of their stripes, with a little noise. Any classifier can learn it."""

    def split(count: int, seed: int) -> dataset.Split:
        labels = np.arange(count) % classes
        noise = np.random.default_rng(seed).integers(0, 30, (count, size, size, 3))
        pattern = np.arange(size * size * 3).reshape(size, size, 3) % classes == labels[:, None, None, None]
        return dataset.Split((150 * pattern + noise).astype(np.uint8), labels.astype(np.int64))

    return dataset.DataSet("stripes", split(train, 0), split(test, 1), tuple("abcdefghijkl"[:classes]))


def relabel(images: dataset.DataSet, train: Any, test: Any) -> dataset.DataSet:
    """Return the images with other labels. `train` and `test` have one label for all images, or a label for each."""
    return dataclasses.replace(
        images,
        train=dataset.Split(images.train.images, np.broadcast_to(train, images.train.labels.shape)),
        test=dataset.Split(images.test.images, np.broadcast_to(test, images.test.labels.shape)),
    )


def draw_clouds(count: int, width: int = 6, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return random points (count, width) and their labels. The points of a class are scattered around one direction.

    The classes overlap, so no classifier can label all points correctly.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    return (centres[labels] + 1.5 * random.standard_normal((count, width))).astype(np.float32), labels


@functools.cache
def draw_cifar_images() -> dataset.DataSet:
    """Return a data set with CIFAR-10's name and classes and twelve images of random pixels in each split."""
    random = np.random.default_rng(0)
    splits = [dataset.Split(random.integers(0, 256, (12, 32, 32, 3), np.uint8), np.arange(12) % 10) for _ in range(2)]
    return dataset.DataSet("cifar10", *splits, cifar.CIFAR10.classes)
