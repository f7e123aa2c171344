"""Loads data sets of all kinds by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowlevel_simclr.config.choices import (
    DATASET_FORMS,
    DATASETS,
    IN_MEMORY,
    PICTURE_FORMS,
    TRAIN_ON,
    describe_datasets,
)
from lowlevel_simclr.data import cifar, image_folder, npz, shapes
from lowlevel_simclr.data.dataset import DataError, DataSet, Split, find_labelled
from lowlevel_simclr.data.framed_images import FramedImages, get_canvases
from lowlevel_simclr.data.packed_images import PackedImages
from lowlevel_simclr.data.picture_forms import Request, list_pictures
from lowlevel_simclr.data.streamed import StreamedImages

SHAPES_TRAIN, SHAPES_TEST = 5000, 1000  # images in each split of the shapes


def load_dataset(
    dataset: str,
    data_dir: str | None = None,
    seed: int = 0,
    *,
    largest_side: int = 256,
    memory_limit: float = 4.0,
    at_least: int = 1,
    before: Mapping[str, Any] | None = None,
    splits: str = "auto",
    own: Path | None = None,
    cache: str | None = None,
    labels: str | None = None,
    split: str | None = None,
) -> DataSet:
    """Load the data set with the given name.

    Args:
        dataset: 'shapes', which is drawn from the seed; 'cifar10'; 'cifar100'; 'npz:PATH' for a NumPy file; or encoded
            images (such as JPEG files) in one of PICTURE_FORMS, such as 'folder:PATH'.
        data_dir: the folder with the files of cifar10 or cifar100. None: they are downloaded into Keras's cache. For
            names with a PATH, a relative PATH starts in this folder. For 'tfds:', the folder of TensorFlow Datasets.
        seed: seed from which shapes are drawn. It also chooses the held-out images if there is no test split.
        largest_side: pixels. Only for encoded images, see `image_folder.load`.
        memory_limit: GiB. Only for encoded images, see `image_folder.load`.
        at_least: least number of training images. Only for encoded images, see `image_folder.load`.
        before: data.json of an earlier session (start) of the run. Only for encoded images, see `image_folder.load`.
        splits: which folders are splits, see `picture_forms.Request`.
        own: the run folder, see `picture_forms.Request`.
        labels: a CSV file of labels, see `picture_forms.Request`.
        split: a CSV file of splits, see `picture_forms.Request`.
        cache: the folder for the decoded (packed) pixels, and for the index of the image files. Only for encoded
            images, see `image_folder.load`.

    Raises:
        DataError: if no data set has that name, or if its files are missing, damaged or of an unsuitable kind.

    Examples:
        >>> load_dataset("shapes", seed=0).train.images.shape
        (5000, 32, 32, 3)
    """
    if dataset.startswith(IN_MEMORY):
        raise DataError(
            f"the images of {dataset} were in the memory of a Python program. Give them again, as "
            "lowlevel_simclr.train(dataset=images) or lowlevel_simclr.evaluate(run, dataset=images)."
        )
    form, _, text = dataset.partition(":")
    request = Request(dataset, data_dir, seed, splits, own, labels, split)
    if dataset.startswith(PICTURE_FORMS) and text:
        packed = Path(cache).expanduser() if cache else None
        limits: dict[str, Any] = {"largest_side": largest_side, "memory_limit": memory_limit, "at_least": at_least}
        return image_folder.load(dataset, list_pictures(request), before=before, cache=packed, **limits)
    loaders: dict[str, Callable[[], DataSet]] = {
        "shapes": lambda: _load_shapes(seed),
        "cifar10": lambda: cifar.load(cifar.CIFAR10, data_dir),
        "cifar100": lambda: cifar.load(cifar.CIFAR100, data_dir),
        "npz:": lambda: npz.load(request.path, seed),
    }
    name = f"{form}:" if text else dataset
    if name not in (DATASET_FORMS if text else DATASETS):
        raise DataError(f"There is no data set '{dataset}'. Use one of {describe_datasets()}.")
    return loaders[name]()


def measure_pictures(request: Request) -> image_folder.Pictures | None:
    """Return the number of training images and their usual size, see `image_folder.measure_pictures`.

    Raises:
        DataError: see `picture_forms.list_pictures`.
    """
    return image_folder.measure_pictures(list_pictures(request))


def _load_shapes(seed: int) -> DataSet:
    """Draw all images in one sequence and cut it in two, so that no image is in both splits."""
    images, labels = shapes.draw_shapes(SHAPES_TRAIN + SHAPES_TEST, seed)
    train = Split(images[:SHAPES_TRAIN], labels[:SHAPES_TRAIN])
    test = Split(images[SHAPES_TRAIN:], labels[SHAPES_TRAIN:])
    return DataSet("shapes", train, test, shapes.CLASSES)


def is_streamed(images: DataSet) -> bool:
    """Return whether the images are not in memory, but are read from files each time they are needed."""
    return isinstance(get_canvases(images.train.images), StreamedImages)


def describe_streaming(images: DataSet) -> str:
    """Return a text such as ", packed in one file" if images are read from files, or "" if they are in memory."""
    if isinstance(get_canvases(images.train.images), PackedImages):
        return ", packed in one file"
    return ", decoded when a batch needs them" if is_streamed(images) else ""


def refuse_to_keep_on_device(images: DataSet) -> None:
    """Check that the images are in memory, as `--data-on device` needs.

    Raises:
        DataError: if the images are not in memory, but are read from files when they are needed.
    """
    if is_streamed(images):
        raise DataError(
            f"--data-on device needs the images in memory, but those of {images.name} are streamed from files. "
            "Use --data-on auto, or a larger --memory-limit."
        )


def select_training_images(images: DataSet, train_on: str = TRAIN_ON[0]) -> Any:
    """Return the images to train on, (n, H, W, C) uint8. If they have different sizes, return `FramedImages`.

    Args:
        images: the data set.
        train_on: 'train' for the train split, or 'all' for the train split followed by the test split.
    """
    train, test = images.train.images, images.test.images
    if train_on == TRAIN_ON[0]:
        return train
    return np.concatenate([train, test]) if isinstance(train, np.ndarray) else train.join(test)


def select_training_labels(images: DataSet, train_on: str = TRAIN_ON[0]) -> np.ndarray:
    """Return the labels (n,) of the images that `select_training_images` returns, in the same order."""
    train, test = images.train.labels, images.test.labels
    return train if train_on == TRAIN_ON[0] else np.concatenate([train, test])


def select_rows(images: Any, rows: np.ndarray) -> Any:
    """Return the images with the row numbers `rows` (m,), stored in the same way as `images`."""
    kinds = StreamedImages, FramedImages
    return images.select_rows(rows) if isinstance(images, kinds) else images[rows]


def keep_labelled(images: DataSet) -> DataSet:
    """Return the data set without the images that have no label. A split without any label stays as it is."""
    splits = []
    for split in (images.train, images.test):
        rows = find_labelled(split)
        if len(rows) in (0, len(split.labels)):
            splits.append(split)
            continue
        splits.append(Split(select_rows(split.images, rows), split.labels[rows]))
    return dataclasses.replace(images, train=splits[0], test=splits[1])


def describe_dataset(images: DataSet) -> dict[str, Any]:
    """Return the content of data.json: counts, classes, image shape and skipped files.

    For a folder of images, it also has entries that identify the files, see `image_folder.load`.
    """
    counts = {"train": len(images.train.images), "test": len(images.test.images), "skipped": 0}
    plain = {"dataset": images.name, "counts": counts, "classes": list(images.classes), "skipped": []}
    return {**plain, "shape": list(images.train.images.shape[1:]), **images.record}
