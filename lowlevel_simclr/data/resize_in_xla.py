"""Bilinear antialiased resizing as matrix products, for XLA, which has no kernel for TensorFlow's own op."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def resize_by_products(images: tf.Tensor, size: int) -> tf.Tensor:
    """Return images (..., H, W, C) as (..., size, size, C) float32; H and W must be known.

    The weights are those of `tf.image.resize` with antialias: a triangle whose half width is one pixel of the coarser
    of the two grids, normalised to sum 1.
    """
    height, width = images.shape[-3:-1]
    rows, columns = (tf.constant(make_weights(length, size)) for length in (height, width))  # (S, H), (S, W)
    return tf.einsum("sh,...hwc,tw->...stc", rows, tf.cast(images, tf.float32), columns)


def make_weights(length: int, size: int) -> NDArray[np.float32]:
    """Return the weight of each of `length` pixels in each of `size` pixels, (size, length); rows sum to 1."""
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
