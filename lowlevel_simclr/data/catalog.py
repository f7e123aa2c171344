"""A data set by its name, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowlevel_simclr.config.choices import DATASET_FORMS, DATASETS, IN_MEMORY, TRAIN_ON, describe_datasets
from lowlevel_simclr.data import cifar, image_folder, npz, shapes
from lowlevel_simclr.data.dataset import DataError, DataSet, Split

SHAPES_TRAIN, SHAPES_TEST = 5000, 1000  # images drawn for each split


def load_dataset(
    dataset: str,
    data_dir: str | None = None,
    seed: int = 0,
    *,
    largest_side: int = 256,
    memory_limit: float = 4.0,
    at_least: int = 1,
    before: Mapping[str, Any] | None = None,
) -> DataSet:
    """The data set of that name.

    Args:
        dataset: 'shapes', drawn from the seed; 'cifar10' or 'cifar100'; 'folder:PATH', a folder of images; 'npz:PATH'.
        data_dir: the folder with the files of cifar10 or cifar100 (None: downloaded to Keras's cache), or where a
            relative PATH starts.
        seed: what the shapes are drawn from, and what holds out the test images where there is no test split.
        largest_side: of a folder, see `image_folder.load`; so are memory_limit (GiB), at_least and before.
        memory_limit: see there.
        at_least: see there.
        before: see there.

    Raises:
        DataError: there is no such data set, or its files are missing, damaged or hold something else.
    """
    if dataset.startswith(IN_MEMORY):
        raise DataError(
            f"the images of {dataset} were in the memory of a Python program: give them again, as "
            "lowlevel_simclr.train(dataset=images) or lowlevel_simclr.evaluate(run, dataset=images)"
        )
    form, _, text = dataset.partition(":")
    path = Path(data_dir or "").expanduser() / Path(text).expanduser()

    def load_folder() -> DataSet:
        limits: dict[str, Any] = {"largest_side": largest_side, "memory_limit": memory_limit, "at_least": at_least}
        return image_folder.load(dataset, path, seed, before=before, **limits)

    loaders: dict[str, Callable[[], DataSet]] = {
        "shapes": lambda: _load_shapes(seed),
        "cifar10": lambda: cifar.load(cifar.CIFAR10, data_dir),
        "cifar100": lambda: cifar.load(cifar.CIFAR100, data_dir),
        "folder:": load_folder,
        "npz:": lambda: npz.load(path, seed),
    }
    name = f"{form}:" if text else dataset
    if name not in (DATASET_FORMS if text else DATASETS):
        raise DataError(f"there is no data set '{dataset}': give one of {describe_datasets()}")
    return loaders[name]()


def _load_shapes(seed: int) -> DataSet:
    """One stretch of the drawn images, cut in two: no image is in both splits."""
    images, labels = shapes.draw_shapes(SHAPES_TRAIN + SHAPES_TEST, seed)
    train = Split(images[:SHAPES_TRAIN], labels[:SHAPES_TRAIN])
    test = Split(images[SHAPES_TRAIN:], labels[SHAPES_TRAIN:])
    return DataSet("shapes", train, test, shapes.CLASSES)


def is_streamed(images: DataSet) -> bool:
    """Whether its images are decoded each time they are wanted."""
    return isinstance(images.train.images, image_folder.FolderImages)


def refuse_to_keep_on_device(images: DataSet) -> None:
    """Refuses to put images on a device that are not in memory.

    Raises:
        DataError: they are not.
    """
    if is_streamed(images):
        raise DataError(
            f"--data-on is device and the images of {images.name} are decoded as they are needed: give auto, or a "
            "--memory-limit that they fit into"
        )


def select_training_images(images: DataSet, train_on: str = TRAIN_ON[0]) -> Any:
    """(n, H, W, C) uint8: the train split, or with 'all' the test split behind it."""
    train, test = images.train.images, images.test.images
    if train_on == TRAIN_ON[0]:
        return train
    return train.joined(test) if is_streamed(images) else np.concatenate([train, test])


def describe_dataset(images: DataSet) -> dict[str, Any]:
    """What data.json says: counts, classes and what was skipped; of a folder also what tells it apart from another."""
    counts = {"train": len(images.train.images), "test": len(images.test.images), "skipped": 0}
    plain = {"dataset": images.name, "counts": counts, "classes": list(images.classes), "skipped": []}
    return {**plain, "shape": list(images.train.images.shape[1:]), **images.record}
