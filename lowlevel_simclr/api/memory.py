"""A data set of images that a caller already has in memory, as arrays or as a `tf.data.Dataset`.

The name of such a data set holds the fingerprint of its images. The name is a setting, and it belongs to the identity
of a run. So a run is never resumed with other images.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.choices import IN_MEMORY
from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out, number_classes

WANTED = (
    "Give a name such as 'cifar10', uint8 images (n, height, width, channels), a pair (images, labels), or a "
    "tf.data.Dataset of images of one shape."
)
GIB = 2**30
SHOWN = 16  # hexadecimal digits of the fingerprint in the name


def load_from_memory(given: Any, seed: int = 0, memory_limit: float = 4.0) -> DataSet:
    """Return the caller's images as a data set. The seed decides which tenth of the images is held out.

    Args:
        given: uint8 images (n, H, W, C) or (n, H, W), or a pair of such images and labels (n,). It may also be a
            `tf.data.Dataset` of images, of pairs (image, label), or of batches of either. Labels are whole numbers.
        seed: the seed of the draw.
        memory_limit: the most GiB of images that may be read from a `tf.data.Dataset`.

    Raises:
        DataError: if `given` has another type or shape, or if the `tf.data.Dataset` is endless or too large.
    """
    if isinstance(given, tf.data.Dataset):
        given = _read_stream(given, memory_limit)
    images, labels = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, None)
    images = _check_images(images)
    (labels,), classes = number_classes(_check_labels(labels, len(images)))
    fingerprint = fingerprint_images(images)
    away = choose_held_out(len(images), seed)
    train, test = (Split(images[rows], labels[rows]) for rows in (~away, away))
    record = {"fingerprint": fingerprint}
    return DataSet(f"{IN_MEMORY}{fingerprint[:SHOWN]}", train, test, classes, record)


def fingerprint_images(images: np.ndarray) -> str:
    """Return the SHA-256 over the shape and the pixels of images (n, H, W, C) uint8, 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{images.shape}\n".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def _check_images(given: Any) -> np.ndarray:
    """Return images as (n, H, W, C) uint8, or raise a DataError."""
    if not hasattr(given, "__array__"):
        raise DataError(f"dataset is of type {type(given).__name__}. {WANTED}")
    images = np.asarray(given)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8:
        raise DataError(
            f"the images are {images.dtype}. Give uint8 pixels from 0 to 255. If yours are in [0, 1], use "
            "(255 * images).round().astype('uint8')."
        )
    if images.ndim != 4 or not 1 <= images.shape[-1] <= 4 or 0 in images.shape:
        raise DataError(f"the images have shape {np.shape(given)}. Give (n, height, width, channels), 1 to 4 channels.")
    return images


def _check_labels(given: Any, count: int) -> np.ndarray:
    """Return the labels as (n,). Without labels, return -1 for each image. Raise a DataError if they are unusable."""
    if given is None:
        return np.full(count, UNLABELLED, np.int64)
    labels = np.asarray(given)
    flat = labels.reshape(len(labels)) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.shape != (count,) or flat.dtype.kind not in "iu" or flat.min() < 0:
        raise DataError(
            f"the labels are {labels.dtype} {labels.shape}. Give {count} whole numbers from 0, one for each image."
        )
    return flat


def _read_stream(stream: tf.data.Dataset, memory_limit: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images of a `tf.data.Dataset`, and its labels if it has any.

    Raises:
        DataError: if the stream is endless, empty or larger than the limit, or if its elements are not images of one
            shape.
    """
    if stream.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError("the tf.data.Dataset is endless: leave out repeat(), and training takes care of the epochs")
    spec = stream.element_spec
    parts = tuple(spec) if isinstance(spec, (tuple, list)) else (spec,)
    if len(parts) > 2 or not all(isinstance(part, tf.TensorSpec) for part in parts):
        raise DataError(f"the tf.data.Dataset has elements {spec}. Its elements must be image or (image, label).")
    rank = parts[0].shape.rank
    if rank not in (3, 4):
        raise DataError(f"the tf.data.Dataset has images of shape {parts[0].shape}. Give (height, width, channels).")
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    size = 0
    for element in stream.as_numpy_iterator():
        image, *label = element if len(parts) > 1 else (element,)
        image = image[None] if rank == 3 else image
        if images and image.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"the tf.data.Dataset has images of shapes {images[0].shape[1:]} and {image.shape[1:]}: resize them to "
                "one shape"
            )
        size += image.nbytes
        if size > memory_limit * GIB:
            raise DataError(
                f"the tf.data.Dataset has more than {memory_limit:g} GiB of images, which is the memory limit. "
                "Use a larger memory_limit, smaller images, or dataset='folder:PATH', whose files are read when needed."
            )
        images.append(image)
        labels += [np.atleast_1d(value) for value in label]
    if not images:
        raise DataError("the tf.data.Dataset is empty. It must contain images.")
    return np.concatenate(images), np.concatenate(labels) if labels else None
