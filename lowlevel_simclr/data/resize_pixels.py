"""Pillow's bilinear resize. Where possible, this package's native library computes it, in a seventh of Pillow's time.

The library is used on Linux on x86-64, if it gives the same pixels as the installed Pillow for a few images at the
first call. In all other cases Pillow resizes. So the pixels are the same everywhere, and only the time differs.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowlevel_simclr.runtime import platform_ops

Pixels = NDArray[np.uint8]
Resize = Callable[[Pixels, "Size", "Box"], Pixels]
_NAME = "lowlevel_simclr_resize_1"  # the number is the version of the arguments, see kernels/resize/resize_cpu.cc
_TRIED = (((40, 70, 3), (18, 32)), ((31, 45, 1), (31, 60)), ((60, 33, 3), (75, 20)))  # tried shapes and sizes


class Size(NamedTuple):
    """The size of an image in pixels."""

    height: int
    width: int


class Box(NamedTuple):
    """A part of an image, in pixels that need not be whole."""

    left: float
    top: float
    right: float
    bottom: float


def resize_image(image: Image.Image, size: Size, box: Box) -> Pixels:
    """Return a part of an image scaled to a size: (height, width) uint8, or (height, width, 3).

    Args:
        image: of mode "L" or "RGB", and decoded.
        size: the size of the result.
        box: the part of the image.
    """
    function = _find_function()
    if function is None or _is_column_first(Size(image.height, image.width), size):
        return resize_by_pillow(image, size, box)
    pixels = np.asarray(image)
    made = function(pixels.reshape(*pixels.shape[:2], -1), size, box)
    return made if pixels.ndim == 3 else made[..., 0]


def resize_by_pillow(image: Image.Image, size: Size, box: Box) -> Pixels:
    """Do the same as `resize_image`, but always with Pillow."""
    return np.asarray(image.resize((size.width, size.height), Image.Resampling.BILINEAR, box=box))


def _is_column_first(source: Size, target: Size) -> bool:
    """Return whether Pillow 13 filters the columns before the rows for these sizes. Older versions never do this."""
    lost = source.height - target.height
    return lost > max(0, 2 * (source.width - target.width))


@functools.cache
def _find_function() -> Resize | None:
    """Return the native library's resize. If it is missing or gives other pixels than Pillow, return None."""
    if platform.machine() != "x86_64" or not platform_ops.expects_library():
        return None
    import tensorflow as tf  # here, so that --help does not import TensorFlow

    try:
        # TensorFlow must load the library first. It registers the ops of a library while it loads it. If the library is
        # in memory already, nothing is registered, and ops/_library.py would later find no ops.
        tf.load_op_library(str(platform_ops.LIBRARY))
        found = load_function(str(platform_ops.LIBRARY))
    except (OSError, AttributeError, tf.errors.OpError):  # ops/_library.py explains what is wrong with the library
        return None
    return found if all(_agrees(found, shape, size) for shape, size in _TRIED) else None


def load_function(library: str) -> Resize:
    """Return the resize function of a library.

    Raises:
        OSError: if the library does not load.
        AttributeError: if it has no resize, because the version of the library is not that of this package.
    """
    function = getattr(ctypes.CDLL(library), _NAME)
    pointer, count, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    function.argtypes = [pointer, count, count, count, number, number, number, number, pointer, count, count]
    function.restype = ctypes.c_int

    def resize(pixels: Pixels, size: Size, box: Box) -> Pixels:
        if not (0 <= box.left < box.right <= pixels.shape[1] and 0 <= box.top < box.bottom <= pixels.shape[0]):
            raise ValueError(f"The box {tuple(box)} is not within an image of {pixels.shape[:2]} pixels.")
        source, made = np.ascontiguousarray(pixels), np.empty((*size, pixels.shape[2]), np.uint8)
        if not function(source.ctypes.data, *source.shape, *box, made.ctypes.data, *size):
            raise MemoryError("There is no memory to resize an image.")
        return made

    return resize


def _agrees(function: Resize, shape: tuple[int, int, int], size: tuple[int, int]) -> bool:
    """Return whether the function and Pillow resize an image of noise to the same pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    height, width, _ = shape
    box = Box(width / 7, height / 9, width - 1.5, height)
    expected = resize_by_pillow(Image.fromarray(pixels.squeeze()), Size(*size), box)
    return np.array_equal(function(pixels, Size(*size), box).squeeze(), expected)
