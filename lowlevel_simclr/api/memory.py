"""A data set of images that a caller already has in memory, as arrays or as a `tf.data.Dataset`.

The name of such a data set contains a hash (fingerprint) of its images. A run can only be resumed with a data set of
the same name, so it is never resumed with different images.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.choices import IN_MEMORY
from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out, number_classes

WANTED = (
    "Give a name such as 'cifar10' or 'folder:PATH', uint8 images (n, height, width, channels), a pair (images, "
    "labels), or a tf.data.Dataset of images of one shape."
)
UINT8 = (
    "Give uint8 pixels from 0 to 255. If yours are in [0, 1], use (255 * images).round().astype('uint8'), or "
    "tf.image.convert_image_dtype(image, tf.uint8)."
)
IMAGE_KEYS = ("image", "images", "img", "x")  # accepted names in the elements of a `tf.data.Dataset`
LABEL_KEYS = ("label", "labels", "class", "target", "y")
GIB = 2**30
SHOWN = 16  # hexadecimal digits of the fingerprint in the name


def load_from_memory(given: Any, seed: int = 0, memory_limit: float = 4.0) -> DataSet:
    """Return the caller's images as a data set.

    Args:
        given: one of these forms:

            - an array of uint8 images, (n, H, W, C) or (n, H, W)
            - a pair (images, labels) of arrays, where the labels (n,) are whole numbers from 0, with or without gaps
            - a `tf.data.Dataset` whose elements are images, pairs (image, label), dictionaries with one of IMAGE_KEYS
              and perhaps one of LABEL_KEYS, or batches of these
            - two such pairs, as Keras's `load_data` returns them, or two `tf.data.Dataset`: the images to train on, and
              the images to hold out

            In the first three forms, a tenth of the images is held out.
        seed: decides which images are held out.
        memory_limit: limit for the images that are read from a `tf.data.Dataset`, in GiB.

    Raises:
        DataError: if `given` has another type or shape, or if the `tf.data.Dataset` is endless or too large.
    """
    if _has_splits(given):
        return _load_splits(*(_take_images(part, memory_limit) for part in given))
    images, labels = _take_images(given, memory_limit)
    (numbers,), classes = number_classes(labels)
    fingerprint = fingerprint_images(images)
    away = choose_held_out(len(images), seed)
    train, test = (Split(images[rows], numbers[rows]) for rows in (~away, away))
    return _name_set(fingerprint, train, test, classes)


def _has_splits(given: Any) -> bool:
    """Return whether the caller gave two splits: two pairs, or two `tf.data.Dataset`."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        return False
    return all(isinstance(part, tf.data.Dataset) for part in given) or all(
        isinstance(part, (tuple, list)) and len(part) == 2 and hasattr(part[0], "__array__") for part in given
    )


def _take_images(given: Any, memory_limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, H, W, C) uint8 and the labels (n,) of one split, or raise a DataError."""
    if isinstance(given, tf.data.Dataset):
        given = _read_stream(given, memory_limit)
    images, labels = given if isinstance(given, (tuple, list)) and len(given) == 2 else (given, None)
    images = _check_images(images)
    return images, _check_labels(labels, len(images))


def _load_splits(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> DataSet:
    """Return the data set of two splits. Each split is a pair of images (n, H, W, C) and labels (n,).

    Raises:
        DataError: if the images of the two splits differ in shape.
    """
    shapes = [images.shape[1:] for images, _ in (first, second)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"the images to train on have shape {shapes[0]}, and those to hold out {shapes[1]}. Give equal shapes."
        )
    numbers, classes = number_classes(first[1], second[1])
    train, test = (Split(images, labels) for (images, _), labels in zip((first, second), numbers))
    both = " ".join(fingerprint_images(split.images) for split in (train, test))
    return _name_set(hashlib.sha256(both.encode()).hexdigest(), train, test, classes)


def _name_set(fingerprint: str, train: Split, test: Split, classes: tuple[str, ...]) -> DataSet:
    """Return the data set of two splits. Its name contains the fingerprint of its images."""
    return DataSet(f"{IN_MEMORY}{fingerprint[:SHOWN]}", train, test, classes, {"fingerprint": fingerprint})


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
        raise DataError(f"the images are {images.dtype}. {UINT8}")
    if images.ndim != 4 or not 1 <= images.shape[-1] <= 4 or 0 in images.shape:
        raise DataError(f"the images have shape {np.shape(given)}. Give (n, height, width, channels), 1 to 4 channels.")
    return images


def _check_labels(given: Any, count: int) -> np.ndarray:
    """Return the labels as (n,). Without labels, each is -1. Raise a DataError if they cannot be used."""
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
    stream, parts = _take_parts(stream)
    rank = _check_spec(parts[0])
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    size = 0
    for element in stream.as_numpy_iterator():
        image, *label = element if isinstance(element, tuple) else (element,)
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


def _take_parts(stream: tf.data.Dataset) -> tuple[tf.data.Dataset, tuple[tf.TensorSpec, ...]]:
    """Return a `tf.data.Dataset` of images or of (image, label), and the shapes and types of its parts.

    An element that is a dictionary becomes a tuple (image,) or (image, label).

    Raises:
        DataError: if its elements are neither images nor pairs of image and label.
    """
    spec = stream.element_spec
    if isinstance(spec, dict):
        keys = [next((key for key in known if key in spec), None) for known in (IMAGE_KEYS, LABEL_KEYS)]
        if keys[0] is None:
            raise DataError(
                f"the tf.data.Dataset has elements with the keys {', '.join(map(str, spec))}. The image must be under "
                f"one of {', '.join(IMAGE_KEYS)}."
            )
        chosen = [key for key in keys if key is not None]
        stream = stream.map(lambda element: tuple(element[key] for key in chosen))
        spec = stream.element_spec
    parts = tuple(spec) if isinstance(spec, (tuple, list)) else (spec,)
    if len(parts) > 2 or not all(isinstance(part, tf.TensorSpec) for part in parts):
        raise DataError(f"the tf.data.Dataset has elements {spec}. Its elements must be image or (image, label).")
    return stream, parts


def _check_spec(part: tf.TensorSpec) -> int:
    """Return the number of axes of the images in an element: 3 for one image, 4 for a batch of images.

    Raises:
        DataError: if there are not 3 or 4 axes, or if the images are not uint8.
    """
    if part.dtype == tf.string:
        raise DataError(
            "the tf.data.Dataset has encoded images, or their paths. Decode them with tf.io.decode_image, or write the "
            "paths into a file and use dataset='list:FILE'."
        )
    if part.shape.rank not in (3, 4):
        raise DataError(f"the tf.data.Dataset has images of shape {part.shape}. Give (height, width, channels).")
    if part.dtype != tf.uint8:
        raise DataError(f"the images of the tf.data.Dataset are {part.dtype.name}. {UINT8}")
    return int(part.shape.rank)
