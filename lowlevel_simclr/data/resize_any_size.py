"""Bilinear antialiased resizing of images whose size is known only when the model runs.

The resize consists of two matrix products, whose weights follow from the size of the images. Every program that
converts models to other formats supports matrix products. ONNX has no operation for TensorFlow's antialiased resize,
and tf2onnx would write a file that onnxruntime cannot run.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf


def resize_any_size(images: Any, size: int, operations: ModuleType) -> Any:
    """Return images (B, H, W, C) resized to (B, size, size, C) float32, for any H and W.

    The weights are those of `tf.image.resize` with antialias, see `resize_in_xla.make_weights`.

    Args:
        images: (B, H, W, C) float32, tensors or symbolic images of Keras.
        size: number of pixels a side of the result.
        operations: `tf`, or `keras.ops` for symbolic images of Keras 3.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr.data.resize_any_size import resize_any_size
        >>> row = tf.reshape(tf.constant([[0.0, 0.0, 1.0, 1.0]] * 4), [1, 4, 4, 1])
        >>> [round(float(pixel), 3) for pixel in resize_any_size(row, 2, tf)[0, 0, :, 0]]
        [0.143, 0.857]
    """
    # The number of pixels is the sum of ones along the axis, because a symbolic image of Keras does not know its shape.
    ones = operations.ones_like(images[:, :, :, 0])
    down = _compute_weights(ones[:, :, 0], size, operations)  # (B, S, H)
    across = _compute_weights(ones[:, 0, :], size, operations)  # (B, S, W)
    planes = operations.transpose(images, (0, 3, 1, 2))  # (B, C, H, W)
    # matmul and not einsum, because Keras 2 saves an einsum without its arguments.
    rows = operations.matmul(operations.expand_dims(down, 1), planes)  # (B, C, S, W)
    across = operations.expand_dims(operations.transpose(across, (0, 2, 1)), 1)  # (B, 1, W, S)
    return operations.transpose(operations.matmul(rows, across), (0, 2, 3, 1))


def _compute_weights(ones: Any, size: int, operations: ModuleType) -> Any:
    """Return the weight that each pixel of the image has in each pixel of the result, along one axis.

    The shape is (B, size, length). The weights of one pixel of the result sum to 1.

    Args:
        ones: (B, length), a one for each pixel.
        size: see `resize_any_size`.
        operations: see `resize_any_size`.
    """
    add_up = operations.reduce_sum if operations is tf else operations.sum
    centres = operations.expand_dims(operations.cumsum(ones, axis=1) - 0.5, 1)  # (B, 1, length), in pixels
    scale = operations.expand_dims(add_up(ones, axis=1, keepdims=True), 1) / size  # (B, 1, 1)
    wanted = scale * (np.arange(size, dtype=np.float32) + 0.5)[:, None]  # (B, size, 1)
    distances = operations.abs(centres - wanted) / operations.maximum(scale, 1.0)
    weights = operations.maximum(1.0 - distances, 0.0)
    return weights / add_up(weights, axis=-1, keepdims=True)
