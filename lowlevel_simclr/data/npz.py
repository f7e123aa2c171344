"""Reads a data set from one NumPy file (.npz).

The arrays are x_train, y_train, x_test and y_test, or images and labels. A file that contains pickled Python objects
raises an error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out, number_classes
from lowlevel_simclr.runtime.arrays import read_arrays
from lowlevel_simclr.runtime.files import open_regular_file
from lowlevel_simclr.runtime.memory import find_available_memory

KEYS = "x_train (and y_train, x_test, y_test), or images (and labels)"


def load(path: Path, seed: int = 0) -> DataSet:
    """Load the data set in an npz file.

    Images are uint8, (n, H, W, C) or (n, H, W), with C from 1 to 4. Labels are whole numbers from 0, (n,) or (n, 1),
    and may be absent. If the file has an array `classes` with the names of the classes, a label is an index into this
    array. Otherwise labels with gaps between them are renumbered without gaps. Without a test split, a tenth of the
    images is held out, chosen by the seed.

    Args:
        path: the file.
        seed: seed that chooses the held-out images.

    Raises:
        DataError: if there is no such file, it is damaged, or its arrays have wrong names, shapes, types or ranges.
    """
    arrays = _read_arrays(path)
    key, labels_key = ("x_train", "y_train") if "x_train" in arrays else ("images", "labels")
    if key not in arrays:
        raise DataError(f"{path} has the arrays {', '.join(sorted(arrays)) or 'none'}. It needs {KEYS}.")
    train = _read_split(path, arrays, key, labels_key)
    if "x_test" in arrays:
        test = _read_split(path, arrays, "x_test", "y_test")
    else:
        away = choose_held_out(len(train.images), seed)
        train, test = (Split(train.images[rows], train.labels[rows]) for rows in (~away, away))
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{train.images.shape[1:]} in {key} and {test.images.shape[1:]} in x_test"
        raise DataError(f"{path} has images of shape {shapes}. Both must have the same shape.")
    train, test, classes = _name_classes(path, arrays.get("classes"), train, test)
    return DataSet(f"npz:{path.name}", train, test, classes)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of the file.

    Raises:
        DataError: if there is no such file, it is not an npz file, or an array is damaged or holds Python objects.
    """
    if not path.exists():
        raise DataError(f"The file {path} does not exist. Use --dataset npz:PATH with the path of an .npz file.")
    limit, limit_name = find_available_memory(), "the available memory"
    try:
        with open_regular_file(path, limit, limit_name) as file:
            return read_arrays(file, limit, limit_name)
    except MemoryError as error:
        raise DataError(f"The arrays in {path} do not fit into the memory. Use fewer or smaller images.") from error
    except Exception as error:  # a damaged archive raises many types, from zipfile.BadZipFile to RuntimeError
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} is not an npz file of plain arrays ({why}). Write it with numpy.savez.") from error


def _read_split(path: Path, arrays: dict[str, np.ndarray], key: str, labels_key: str) -> Split:
    """Check one split, and return its images as (n, H, W, C) and its labels as they are in the file, (n,)."""
    images = arrays[key]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[-1] <= 4 or 0 in images.shape:
        empty = ", so it has no pixels" if 0 in images.shape else ""
        raise DataError(
            f"{key} in {path} is {arrays[key].dtype} {arrays[key].shape}{empty}. It must be uint8 pixels from 0 to 255 "
            "of shape (n, height, width, channels), with 1 to 4 channels."
        )
    return Split(np.ascontiguousarray(images), _read_labels(path, arrays.get(labels_key), labels_key, len(images)))


def _read_labels(path: Path, labels: np.ndarray | None, key: str, count: int) -> np.ndarray:
    """Return the labels (n,) in the type of the file. If the file has no labels, all are UNLABELLED."""
    if labels is None:
        return np.full(count, UNLABELLED, np.int64)
    flat = labels.reshape(len(labels)) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.shape != (count,) or flat.dtype.kind not in "iu" or flat.min() < 0:
        least = f", and its smallest number is {flat.min()}" if flat.size and flat.dtype.kind in "iuf" else ""
        raise DataError(
            f"{key} in {path} is {labels.dtype} {labels.shape}{least}. It must be {count} whole numbers from 0, one "
            "per image."
        )
    return flat


def _name_classes(
    path: Path, names: np.ndarray | None, train: Split, test: Split
) -> tuple[Split, Split, tuple[str, ...]]:
    """Return both splits with class numbers, and the names of the classes.

    Without names in the file, the labels may be any whole numbers from 0, and the label is the name of its class.
    """
    if names is None:
        (first, second), found = number_classes(train.labels, test.labels)
        return train._replace(labels=first), test._replace(labels=second), found
    count = max(int(split.labels.max()) for split in (train, test) if len(split.labels)) + 1
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) < count:
        raise DataError(f"classes in {path} is {names.dtype} {names.shape}. It must be at least {count} names as text.")
    first, second = (split.labels.astype(np.int64) for split in (train, test))
    return train._replace(labels=first), test._replace(labels=second), tuple(str(name) for name in names)
