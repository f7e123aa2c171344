"""Checks of the arguments of ops. Every implementation refuses the same input with the same message."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.contract.constants import FULL_SCALE
from lowlevel_simclr.contract.view_params import FINITE_FIELDS, ViewParams

WORDS = 2**32  # values of a 32-bit word
LARGEST_PIXEL = 16.0  # in a floating-point image; an image in [0, 255] whose pixels are all darker is nearly black
LONGEST_SIDE = 2**15  # in pixels; sides must be shorter, see make_views.h


def check_index(index: Any) -> Any:
    """Return `index` unchanged if it is (N,) and integer.

    Args:
        index: array or tensor.

    Raises:
        ValueError: if the shape is not (N,) or the type is not an integer type.
    """
    if len(index.shape) != 1 or not index.dtype.name.startswith(("int", "uint")):
        raise ValueError(f"index has shape {tuple(index.shape)} and type {index.dtype.name}. It must be (N,) integers.")
    return index


def check_sizes(sizes: Any, count: int | None) -> Any:
    """Return `sizes` unchanged if it is (N, 2) and integer.

    Args:
        sizes: array or tensor, the height and width of each image in pixels.
        count: N, number of images. None if it is unknown.

    Raises:
        ValueError: if the shape is not (N, 2) or the type is not an integer type.
    """
    rows, integer = sizes.shape[0] if len(sizes.shape) else None, sizes.dtype.name.startswith(("int", "uint"))
    if not integer or len(sizes.shape) != 2 or sizes.shape[1] != 2 or None not in (rows, count) and rows != count:
        raise ValueError(
            f"sizes has shape {tuple(sizes.shape)} and type {sizes.dtype.name}. It must be ({count}, 2) integers, the "
            "height and width of each image."
        )
    return sizes


def check_frames(sizes: NDArray[Any], height: int, width: int) -> None:
    """Check that the frame of every image holds a pixel and lies inside its array.

    Args:
        sizes: (N, 2) integers, the height and width of each image in pixels.
        height: height of the arrays, in pixels.
        width: width of the arrays, in pixels.

    Raises:
        ValueError: if one does not. The message names the row.
    """
    wrong = np.any((sizes < 1) | (sizes > (height, width)), axis=1)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"sizes[{row}] is {sizes[row, 0]} x {sizes[row, 1]} pixels. It must be at least 1 x 1 and at most "
            f"{height} x {width}, the size of the images."
        )


def check_counter(epoch: Any, index: NDArray[Any]) -> None:
    """Check that an epoch and the positions of images fit the words from which views are drawn.

    Args:
        epoch: whole number.
        index: (N,) integers.

    Raises:
        ValueError: if epoch or an index is not in [0, 2^32).
    """
    if not 0 <= epoch < WORDS:
        raise ValueError(f"epoch is {epoch}. It must be in [0, 2^32).")
    wrong = (index < 0) | (index >= WORDS)
    if np.any(wrong):
        place = int(np.argmax(wrong))
        raise ValueError(f"index[{place}] is {index[place]}. An index must be in [0, 2^32).")


def check_image_sides(height: int, width: int) -> None:
    """Check that crops can be drawn from images of this size.

    Args:
        height: height of the images, in pixels.
        width: width of the images, in pixels.

    Raises:
        ValueError: if height or width is not in [1, 2^15).
    """
    if not (1 <= height < LONGEST_SIDE and 1 <= width < LONGEST_SIDE):
        raise ValueError(f"The images have {height} x {width} pixels. Height and width must be in [1, 2^15).")


def check_finite(params: ViewParams) -> None:
    """Check that no factor of a view is NaN or infinite.

    Args:
        params: parameters as arrays or eager tensors.

    Raises:
        ValueError: if a factor is NaN or infinite. The message names the row.
    """
    for name in FINITE_FIELDS:
        values = np.asarray(getattr(params, name))
        wrong = ~np.isfinite(values)
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise ValueError(f"Row {row} has {name} {values[row]}. It must be finite. Draw the parameters again.")


def check_scaling(mean: Any, std: Any, channels: int) -> None:
    """Check the mean and the standard deviation that scale the pixels of views.

    Args:
        mean: number, or one for each channel, or None.
        std: number, or one for each channel, or None.
        channels: C, number of channels.

    Raises:
        ValueError: if only one of them is given, if one has neither 1 nor C numbers, or if a std is not positive.
    """
    if (mean is None) != (std is None):
        raise ValueError(f"mean is {mean} and std is {std}. Give both or neither.")
    if mean is None:
        return
    numbers = [np.asarray(given, np.float64).reshape(-1) for given in (mean, std)]
    if any(len(given) not in (1, channels) for given in numbers) or not np.all(numbers[1] > 0):
        raise ValueError(
            f"mean is {mean} and std is {std}. Each must be one number, or one for each of the {channels} "
            "channels, and std must be above 0."
        )


def complete_scaling(mean: Any, std: Any, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the number to subtract from each channel, and the number to divide it by: (C,) float64 each.

    The implementations in TensorFlow use this function. The reference scales by itself.

    Args:
        mean: number, or one for each channel, or None.
        std: number, or one for each channel, or None.
        channels: C, number of channels.

    Raises:
        ValueError: see `check_scaling`.

    Examples:
        >>> from lowlevel_simclr.contract.checks import complete_scaling
        >>> offset, scale = complete_scaling(0.5, 0.25, channels=3)
        >>> offset.tolist(), scale.tolist()
        ([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    """
    check_scaling(mean, std, channels)
    numbers = (0, 1) if mean is None else (mean, std)
    offset, scale = (np.broadcast_to(np.asarray(given, np.float64).reshape(-1), channels) for given in numbers)
    return offset, scale


def check_images(shape: tuple[Any, ...], dtype: str, size: int) -> None:
    """Check that views can be made from images of this shape and type.

    Args:
        shape: shape of the images, (N, H, W, C). N may be None.
        dtype: name of the type of the images.
        size: S, side of a view in pixels.

    Raises:
        ValueError: if shape, type or size are wrong.
    """
    if len(shape) != 4 or not all(shape[1:]):
        raise ValueError(f"images have shape {tuple(shape)}. They must be (N, H, W, C), and only N may be unknown.")
    if dtype not in FULL_SCALE and not dtype.startswith("float"):
        raise ValueError(f"images are {dtype}. They must be uint8, uint16 or floating-point.")
    if size < 1:
        raise ValueError(f"size is {size}. A view must have a side of at least 1 pixel.")


def check_largest_pixel(largest: float) -> None:
    """Check that the pixels of floating-point images look like pixels in [0, 1].

    Args:
        largest: the largest pixel. A little above 1 is accepted, as after a resize that overshoots.

    Raises:
        ValueError: if it is above LARGEST_PIXEL. Most such images are in [0, 255], and their views would be white.
    """
    if largest > LARGEST_PIXEL:
        raise ValueError(
            f"The images are floating-point with pixels up to {largest:g}. They must be in [0, 1]. Divide them by 255, "
            "or give uint8."
        )


def check_params(params: ViewParams, count: int, height: int, width: int, channels: int) -> None:
    """Check that views can be made from images of this shape with these parameters.

    Args:
        params: parameters as arrays.
        count: N, number of images.
        height: height of the images, in pixels.
        width: width of the images, in pixels.
        channels: C, number of channels.

    Raises:
        ValueError: if there are not 2N rows, if a box is empty or leaves the image, if a factor is NaN or infinite, or
            if C is not 3 and a view is grey or changes saturation or hue.
    """
    if len(params.box) != 2 * count:
        raise ValueError(f"params have {len(params.box)} rows for {count} images. There must be two for each image.")
    y, x, h, w = np.asarray(params.box, np.int64).T
    wrong = (y < 0) | (x < 0) | (h < 1) | (w < 1) | (y + h > height) | (x + w > width)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Row {row} has the box (y, x, height, width) = {tuple(int(n) for n in params.box[row])}. It must hold a "
            f"pixel and lie inside the image of {height} x {width} pixels."
        )
    check_finite(params)
    coloured = (params.saturation != 1) | (params.hue != 0) | params.grey
    if channels != 3 and np.any(coloured):
        raise ValueError(
            f"Row {int(np.argmax(coloured))} is grey or changes saturation or hue, but the images have {channels} "
            "channels, not 3. Set grey_probability to 0, and set jitter_probability to 0 or saturation to 1 and "
            "hue to 0."
        )
