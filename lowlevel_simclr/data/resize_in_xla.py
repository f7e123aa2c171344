"""Bilinear antialiased resizing as matrix products.

XLA has no kernel for TensorFlow's own resize op, and that op cannot resize images of different sizes in one call.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def resize_by_products(images: tf.Tensor, size: int) -> tf.Tensor:
    """Return images (..., H, W, C) resized to (..., size, size, C) float32. H and W must be known.

    The weights are those of `tf.image.resize` with antialias: a triangle, normalised to sum 1. Half its width is one
    pixel of the image or one pixel of the result, whichever is larger.
    """
    height, width = images.shape[-3:-1]
    rows, columns = (tf.constant(make_weights(length, size)) for length in (height, width))  # (S, H), (S, W)
    return tf.einsum("sh,...hwc,tw->...stc", rows, tf.cast(images, tf.float32), columns)


def resize_frames(images: tf.Tensor, sizes: tf.Tensor, size: int) -> tf.Tensor:
    """Resize each whole image to one size, without its padding: (N, H, W, C) -> (N, size, size, C) float32.

    Args:
        images: each image lies in the upper left corner of its array.
        sizes: (N, 2) integers, the height and width of each image.
        size: pixels a side of the result.
    """
    heights, widths = tf.unstack(tf.cast(sizes, tf.float32), axis=1)  # (N,) each
    rows, columns = (
        _make_frame_weights(heights, images.shape[1], size),
        _make_frame_weights(widths, images.shape[2], size),
    )
    return tf.einsum("nsh,nhwc,ntw->nstc", rows, tf.cast(images, tf.float32), columns)


def _make_frame_weights(lengths: tf.Tensor, most: int, size: int) -> tf.Tensor:
    """Return the weights of `make_weights` for several lengths (N,), padded with zeros: (N, size, most)."""
    scale = lengths[:, None, None] / size
    places = np.arange(most, dtype=np.float32) + 0.5
    centres = scale * (np.arange(size, dtype=np.float32) + 0.5)[:, None]
    weights = tf.nn.relu(1.0 - tf.abs(places - centres) / tf.maximum(scale, 1.0))
    weights = tf.where(places < lengths[:, None, None], weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


def make_weights(length: int, size: int) -> NDArray[np.float32]:
    """Return the weights that resize `length` pixels to `size` pixels, (size, length). Each row sums to 1."""
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
