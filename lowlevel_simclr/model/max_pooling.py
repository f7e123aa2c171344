"""The encoder's max pooling: Keras's layer, except that on a GPU under XLA it computes the maximum of strided slices.

A strided slice holds one pixel of every pooling window. `encoder.py` builds the encoder with this layer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from lowlevel_simclr.runtime.xla import is_inside_xla


@tf.keras.utils.register_keras_serializable(package="lowlevel_simclr")
class MaxPooling(tf.keras.layers.MaxPooling2D):
    """MaxPooling2D over (B, H, W, C). On a GPU under XLA it takes the maximum of strided slices of the map.

    If windows overlap, XLA's gradient of max pooling on a GPU uses atomic additions, whose order is not fixed. A run
    uses op determinism by default, and then TensorFlow refuses to compile that gradient. The slices are read, compared
    and added in a fixed order.

    Otherwise this layer is identical to Keras's: it has the same options and the same result. If several pixels of a
    window share the largest value (a tie), both layers give the gradient to the first of them.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pool the map: (B, H, W, C) -> (B, H', W', C)."""
        known = self.data_format == "channels_last" and None not in inputs.shape[1:]
        if known and is_inside_xla() and tf.config.get_visible_devices("GPU"):
            return take_max_of_slices(inputs, tuple(self.pool_size), tuple(self.strides), self.padding)
        return super().call(inputs)


def take_max_of_slices(x: tf.Tensor, size: tuple[int, int], stride: tuple[int, int], padding: str) -> tf.Tensor:
    """Max-pool a map by taking the maximum of its slices. On a tie, the first pixel of a window gets the gradient.

    Args:
        x: (B, H, W, C) map of a floating-point type, with known H, W and C.
        size: height and width of a window, in pixels.
        stride: number of pixels from one window to the next, down and across.
        padding: "same" or "valid". "same" works as in TensorFlow: if the padding is odd, the end gets the extra pixel.

    Returns:
        (B, H', W', C).

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr.model.max_pooling import take_max_of_slices
        >>> x = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
        >>> take_max_of_slices(x, size=(2, 2), stride=(2, 2), padding="valid")[0, :, :, 0].numpy().tolist()
        [[5.0, 7.0], [13.0, 15.0]]
    """
    if padding == "same":
        around = [_compute_padding(length, *axis) for length, axis in zip(x.shape[1:3], zip(size, stride))]
        x = tf.pad(x, [(0, 0), *around, (0, 0)], constant_values=tf.constant(-math.inf, x.dtype))
    return _pool(x, size, stride)


def _compute_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Return how many pixels of padding "same" adds before and after one axis."""
    missing = max((-(-length // stride) - 1) * stride + size - length, 0)
    return missing // 2, missing - missing // 2


def _pool(x: tf.Tensor, size: tuple[int, int], stride: tuple[int, int]) -> tf.Tensor:
    """Max-pool the windows that lie within x."""

    @tf.custom_gradient
    def pool(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        pieces = [tf.strided_slice(x, *place, begin_mask=_WHOLE, end_mask=_WHOLE) for place in places]
        largest = functools.reduce(tf.maximum, pieces)

        def gradient(left: tf.Tensor) -> tf.Tensor:
            found = []
            for piece, place in zip(pieces, places):
                here = tf.equal(piece, largest)
                found.append(_put_in_place(tf.where(here, left, tf.zeros_like(left)), tf.shape(x), place))
                left = tf.where(here, tf.zeros_like(left), left)
            return functools.reduce(tf.add, found)

        return largest, gradient

    places = list(_find_places(x.shape[1:3], size, stride))
    return pool(x)


_WHOLE = 0b1001  # a mask with the bits of axis 0 (batch) and axis 3 (channels): a slice takes all of these axes
Place = tuple[list[int], list[int], list[int]]  # begin, end and strides of a slice


def _find_places(lengths: Any, size: tuple[int, int], stride: tuple[int, int]) -> Iterator[Place]:
    """Yield one slice for each position in a window, in order. It holds the pixel at that position of every window."""
    windows = [(length - pixels) // step for length, pixels, step in zip(lengths, size, stride)]  # windows per axis - 1
    for y in range(size[0]):
        for x in range(size[1]):
            ends = [first + step * count + 1 for first, step, count in zip((y, x), stride, windows)]
            yield [0, y, x, 0], [0, *ends, 0], [1, *stride, 1]


def _put_in_place(piece: tf.Tensor, shape: tf.Tensor, place: Place) -> tf.Tensor:
    """Return a tensor of zeros of the given shape, but with `piece` in the slice `place`."""
    begin, end, strides = place
    return tf.raw_ops.StridedSliceGrad(
        shape=shape, begin=begin, end=end, strides=strides, dy=piece, begin_mask=_WHOLE, end_mask=_WHOLE
    )
