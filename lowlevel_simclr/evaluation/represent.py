"""Computes the encoder's output (representation, h) for every image, and checks that the encoder did not change.

The encoder runs in inference mode. Its weights are hashed before and after the computation, and the two hashes must be
equal.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.data.transform import UNSCALED, InferenceTransform, PixelScaling, find_transform
from lowlevel_simclr.runtime.progress_bar import open_bar

BATCH_SIZE = 256  # images that go through the encoder at once
LARGEST_PIXELS, REDUCED_SIDE = 64 * 64, 32  # for the pixel baseline, see `flatten_pixels`


class EncoderChanged(RuntimeError):
    """The weights of an encoder that must be frozen have changed."""


class NonFiniteRepresentation(ArithmeticError):
    """Representations are NaN or infinite, because the training has diverged. The message gives their number."""


class Represented(NamedTuple):
    """One row for each image, float32. A row holds h, or plain pixels.

    Attributes:
        train: (n, d), the train split.
        test: (m, d), the test split.
    """

    train: np.ndarray
    test: np.ndarray


# Images -> rows


def compute_h(
    encoder: tf.keras.Model,
    images: np.ndarray,
    scaling: PixelScaling = UNSCALED,
    batch_size: int = BATCH_SIZE,
    title: str = "",
) -> np.ndarray:
    """Return the representation h of every image, after the test transform (`data/transform.py`) and in inference mode.

    Args:
        encoder: the encoder f, (B, S, S, C) -> (B, d).
        images: (n, H, W, C) uint8.
        scaling: the scaling of the pixels.
        batch_size: number of images that go through the encoder at once. The last batch is filled up with black images,
            so that all batches use one graph.
        title: shown with the progress. Without it, no progress is shown.

    Returns:
        (n, d) float32.

    Raises:
        ValueError: if there are no images.
        NonFiniteRepresentation: if h is NaN or infinite.
    """
    if len(images) == 0:
        raise ValueError("There are no images to encode. Give at least one.")
    batch_size = min(batch_size, len(images))
    transform = find_transform(encoder, scaling)
    parts = []
    with open_bar(title, len(images), "images") as bar:
        for first in range(0, len(images), batch_size):
            batch = images[first : first + batch_size]
            filled = tf.constant(_fill_up(batch, batch_size))
            parts.append(_compute_batch(encoder, transform.size, transform.scaling, filled).numpy())
            bar.update(len(batch))
    h = np.concatenate(parts)[: len(images)]  # (n, d)
    if not np.isfinite(h).all():
        rows = np.flatnonzero(~np.isfinite(h).all(axis=1))
        raise NonFiniteRepresentation(
            f"The representation (h) of {rows.size} images is NaN or infinite, first for image {rows[0]}: the training "
            "has diverged. Try a lower --learning-rate, a longer warm-up or --precision float32."
        )
    return h


def _fill_up(images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the images, followed by black images, as (batch_size, H, W, C)."""
    return np.pad(images, [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)])


@tf.function(autograph=False)
def _compute_batch(encoder: tf.keras.Model, size: int | None, scaling: PixelScaling, images: tf.Tensor) -> tf.Tensor:
    """Return h (B, d) float32 of one batch (B, H, W, C) uint8.

    TensorFlow traces this function once for each encoder, transform and shape. The arguments `size` and `scaling` are
    the parts of the transform. The transform object itself is not an argument, because TensorFlow compares numbers and
    tuples by value, but other objects by identity. So it would trace again for each new object.
    """
    return tf.cast(encoder(InferenceTransform(size, scaling)(images), training=False), tf.float32)


def flatten_pixels(images: np.ndarray) -> np.ndarray:
    """Return images (n, H, W, C) uint8 as rows (n, H*W*C) float32 in [0, 1].

    These rows are a baseline without any learning. Images with more than 64 x 64 pixels are first reduced to 32 x 32
    (bilinear, antialiased). Rows of the full size would not fit into memory, and k-NN would not tell images apart
    better with them.
    """
    if images.shape[1] * images.shape[2] <= LARGEST_PIXELS:
        return np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255
    parts = [_reduce(images[first : first + BATCH_SIZE]) for first in range(0, len(images), BATCH_SIZE)]
    return np.concatenate(parts).reshape(len(images), -1)


def _reduce(images: np.ndarray) -> np.ndarray:
    """Return images (n, H, W, C) uint8 as (n, 32, 32, C) float32 in [0, 1]."""
    return InferenceTransform(REDUCED_SIDE).resize(tf.constant(np.asarray(images))).numpy()


def represent_splits(
    encoder: tf.keras.Model,
    images: DataSet,
    scaling: PixelScaling = UNSCALED,
    batch_size: int = BATCH_SIZE,
    title: str = "",
) -> Represented:
    """Return the representations h of both splits, and check that the encoder was frozen.

    Args:
        encoder: the encoder f, (B, S, S, C) -> (B, d).
        images: the data set.
        scaling: the scaling of the pixels.
        batch_size: images that go through the encoder at once.
        title: see `compute_h`.

    Raises:
        EncoderChanged: if the weights of the encoder changed.
        ValueError: if a split is empty, or if h is NaN or infinite.
    """
    before = hash_weights(encoder)
    h = Represented(*(compute_h(encoder, split.images, scaling, batch_size, title) for split in list_splits(images)))
    refuse_changed_encoder(encoder, before)
    return h


def refuse_changed_encoder(encoder: tf.keras.Model, before: str) -> None:
    """Check that the weights of an encoder have not changed.

    Args:
        encoder: the encoder f.
        before: the result of `hash_weights` before the encoder was used.

    Raises:
        EncoderChanged: if a weight has changed.
    """
    after = hash_weights(encoder)
    if after != before:
        raise EncoderChanged(
            f"The encoder's weights changed during the evaluation (SHA-256 {before[:12]} -> {after[:12]}). Do not "
            "train the encoder while it is evaluated."
        )


def represent_pixels(images: DataSet) -> Represented:
    """Return the pixels of both splits as rows."""
    return Represented(*(flatten_pixels(split.images) for split in list_splits(images)))


def list_splits(images: DataSet) -> tuple[Split, Split]:
    """Return the train split and the test split."""
    return images.train, images.test


def hash_weights(model: tf.keras.Model) -> str:
    """Return the SHA-256 of all weights of a model, 64 hexadecimal digits.

    The hash covers the name, shape, type and bytes of each weight. Moving statistics are included.
    """
    digest = hashlib.sha256()
    for variable in model.weights:
        array = np.ascontiguousarray(variable.numpy())
        digest.update(f"{variable.name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
