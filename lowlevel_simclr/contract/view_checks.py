"""Checks of the arguments of the ops that make views (random crops of images, with changed colours).

Both implementations use these checks: the native op (own kernels) and the stock op (plain TensorFlow).

While a graph is built, values are unknown, so no error can be raised. If a view cannot be made, all four numbers of its
crop box become -1. The stock op, and the native op on a GPU, then set all pixels of this view to NaN. The native op on
a CPU raises an error when it runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.checks import (
    WORDS,
    check_counter,
    check_fields,
    check_finite,
    check_frames,
    check_largest_pixel,
    check_order,
    check_rows,
    check_sizes,
    check_whole,
    describe_value,
)
from lowlevel_simclr.contract.view_params import FINITE_FIELDS, ViewParams

FIELD_TYPES = ViewParams(
    box=tf.int32,
    flip=tf.bool,
    brightness=tf.float32,
    brightness_shift=tf.float32,
    contrast=tf.float32,
    saturation=tf.float32,
    hue=tf.float32,
    order=tf.int32,
    clip=tf.bool,
    grey=tf.bool,
    blur_sigma=tf.float32,
)
NO_BOX = -1  # all four numbers of the crop box of a view that cannot be made


def check_known_counter(epoch: Any, index: tf.Tensor) -> None:
    """Check an epoch and the positions of images, as far as their values are known.

    Args:
        epoch: a number or an integer scalar tensor.
        index: (N,) integers, the positions of images in the data set.

    Raises:
        TypeError: if epoch is not one whole number.
        ValueError: see `checks.check_counter`.
    """
    known_index = tf.get_static_value(index)
    check_counter(_find_epoch(epoch), np.empty(0, np.int64) if known_index is None else known_index)


def _find_epoch(epoch: Any) -> int:
    """Return the value of an epoch, or 0 if it is a tensor whose value is unknown."""
    if not tf.is_tensor(epoch):
        return check_whole("epoch", epoch)
    if not epoch.dtype.is_integer or epoch.shape.rank not in (None, 0):
        raise TypeError(f"epoch is {describe_value(epoch)}. It must be one whole number.")
    known = tf.get_static_value(epoch)
    return 0 if known is None else int(known)


def convert_params(params: ViewParams, count: int | None) -> ViewParams:
    """Return parameters as tensors of the types in `FIELD_TYPES`.

    Args:
        params: parameters as arrays or tensors.
        count: N, number of images. None if it is unknown.

    Raises:
        TypeError: if params do not have the eleven fields of ViewParams, or if a field has the wrong type.
        ValueError: if a field is not an array of its type. Also see `checks.check_rows`.
    """
    fields = zip(check_fields(params), FIELD_TYPES)
    converted = ViewParams(*(tf.convert_to_tensor(field, kind) for field, kind in fields))
    if all(field.shape.rank is not None for field in converted):
        check_rows(converted, count)
    return converted


def list_frames(sizes: Any, index: Any, height: int, width: int) -> tf.Tensor:
    """Return the frame (height and width) of each image, or one frame for all images. Check frames with known values.

    Args:
        sizes: (N, 2) integers, the height and width of each image in pixels. None: every image fills its array.
        index: (N, ...), one row for each image.
        height: height of the arrays, in pixels.
        width: width of the arrays, in pixels.

    Returns:
        (N, 2) int64, or (1, 2) if `sizes` is None.

    Raises:
        ValueError: see `checks.check_sizes` and `checks.check_frames`.
    """
    if sizes is None:
        return tf.constant([[height, width]], tf.int64)
    sizes = check_sizes(tf.convert_to_tensor(sizes), index.shape[0])
    known = tf.get_static_value(sizes)
    if known is not None:
        check_frames(known, height, width)
    return tf.cast(sizes, tf.int64)


def find_sound_rows(epoch: Any, index: tf.Tensor, frames: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Return for each view whether epoch and index fit into 32 bits and the image fits into its array: (2N,) bool."""
    epoch, index = (tf.cast(given, tf.int64) for given in (epoch, index))
    sound = (epoch >= 0) & (epoch < WORDS) & (index >= 0) & (index < WORDS)  # (N,)
    sound &= tf.reduce_all((frames >= 1) & (frames <= (height, width)), axis=1)
    return tf.concat([sound, sound], axis=0)


def are_numbers_sound(params: ViewParams) -> tf.Tensor:
    """Return for each view whether its floats are finite and its order holds each operation once, (2N,) bool."""
    finite = tf.reduce_all(tf.stack([tf.math.is_finite(getattr(params, name)) for name in FINITE_FIELDS]), axis=0)
    once = tf.reduce_any(params.order[:, :, None] == tf.range(4), axis=1)  # (2N, 4), whether an operation is there
    return finite & tf.reduce_all(once, axis=1)


def refuse_unsound_numbers(params: ViewParams) -> ViewParams:
    """Check floats and orders. In a graph, set the box of a view to -1 if `are_numbers_sound` finds them wrong.

    Args:
        params: parameters as tensors.

    Returns:
        The parameters, with the boxes changed as said above.

    Raises:
        ValueError: in eager mode, see `checks.check_finite` and `checks.check_order`.
    """
    if tf.executing_eagerly():
        check_finite(params)
        check_order(params)
        return params
    return params._replace(box=mark_rows(params.box, are_numbers_sound(params)))


def refuse_large_pixels(images: tf.Tensor) -> None:
    """Check in eager mode that the pixels of floating-point images look like pixels in [0, 1].

    In a graph, the values are unknown, and nothing is checked.

    Args:
        images: (N, H, W, C) of any type.

    Raises:
        ValueError: see `checks.check_largest_pixel`.
    """
    if tf.executing_eagerly() and images.dtype.is_floating:
        check_largest_pixel(float(tf.reduce_max(images)))


def mark_rows(box: tf.Tensor, sound: tf.Tensor) -> tf.Tensor:
    """Return the boxes (2N, 4), but with -1 in every row where `sound` (2N,) is False."""
    return tf.where(sound[:, None], box, NO_BOX)
