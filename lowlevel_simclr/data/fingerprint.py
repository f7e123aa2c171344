"""Computes the fingerprint of a data set. The workers (processes) of a training compare their fingerprints.

All workers must read the same images.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from lowlevel_simclr.data.dataset import DataSet

_PIECE = 2**26  # bytes of pixels that are copied at a time, if they are not contiguous


def describe_content(images: DataSet) -> dict[str, Any]:
    """Return a description of the images. Two processes with the same description train on the same images.

    Args:
        images: the data set.

    Returns:
        JSON values by name: the number of images in each split, the shape (height, width, channels) of an image, the
        number of classes, and a SHA-256 over the pixels, the labels and the names of the classes. For a folder of
        images, the hash in data.json over the paths and contents of the files takes the place of the pixels.

    Examples:
        >>> from lowlevel_simclr.data.catalog import load_dataset
        >>> describe_content(load_dataset("shapes"))["training images"]
        5000
    """
    digest = hashlib.sha256()
    of_files = images.record.get("content")
    for split in (images.train, images.test):
        if of_files is None:
            _add_array(digest, np.asarray(split.images))
        _add_array(digest, split.labels)
    skipped = [entry["path"] for entry in images.record.get("skipped", ())]  # the reasons depend on Pillow's version
    digest.update(repr((of_files, skipped, images.classes)).encode("utf-8", "surrogateescape"))
    return {
        "training images": len(images.train.images),
        "test images": len(images.test.images),
        "image shape": list(images.train.images.shape[1:]),
        "classes": len(images.classes),
        "SHA-256 of the data": digest.hexdigest(),
    }


def _add_array(digest: Any, array: np.ndarray) -> None:
    """Add the shape, the type and the bytes of an array to a hash. Only a small part of the array is copied."""
    digest.update(repr((array.shape, array.dtype.str)).encode())
    rows = max(1, _PIECE * len(array) // max(1, array.nbytes))
    for first in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[first : first + rows]).data)
