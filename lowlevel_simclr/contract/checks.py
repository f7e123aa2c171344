"""Checks of the arguments of ops. All implementations of an op use them, so a wrong argument gives the same message.

Most of these ops make views: random crops of images, with changed colours, two of every image.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.contract.constants import FULL_SCALE
from lowlevel_simclr.contract.view_params import FINITE_FIELDS, ViewParams

WORDS = 2**32  # number of values of a 32-bit word
# Float images must have pixels in [0, 1]. If pixels in [0, 255] are passed by mistake, the largest one exceeds this
# limit, unless the images are nearly black.
LARGEST_PIXEL = 16.0
LONGEST_SIDE = 2**15  # pixels; the sides of an image must be shorter than this, see make_views.h
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
RANGES = ("crop_area", "crop_aspect", "brightness", "contrast", "saturation", "hue", "brightness_shift", "blur_sigma")
PROBABILITIES = ("flip_probability", "jitter_probability", "grey_probability", "blur_probability")
MOST_SHOWN = 60  # characters of a wrong value in a message


def describe_value(value: Any) -> str:
    """Describe a wrong argument for an error message: its shortened text on one line, and its type."""
    shown = " ".join(repr(value).split())
    shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."
    return f"{shown} ({type(value).__name__})"


def check_whole(name: str, value: Any) -> int:
    """Return a whole number as an int.

    Args:
        name: name of the argument, for the message.
        value: an integer, or a scalar array or eager tensor of an integer type.

    Raises:
        TypeError: if it is not a whole number.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr.contract.checks import check_whole
        >>> check_whole("size", np.int64(7))
        7
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} is {describe_value(value)}. It must be one whole number.") from error


def check_number(name: str, value: Any) -> float:
    """Return a number as a float.

    Args:
        name: name of the argument, for the message.
        value: a real number.

    Raises:
        TypeError: if it is not a real number.
        ValueError: if it is NaN or infinite, or if float32 cannot hold it.

    Examples:
        >>> from lowlevel_simclr.contract.checks import check_number
        >>> check_number("momentum", 1)
        1.0
    """
    if not isinstance(value, Real):
        raise TypeError(f"{name} is {describe_value(value)}. It must be one number.")
    number = convert_to_float(value)
    if not abs(number) <= LARGEST_FLOAT32:
        raise ValueError(f"{name} is {describe_value(value)}. It must be finite and fit into float32.")
    return number


def convert_to_float(value: Real | float) -> float:
    """Return a real number as a float. A number that no float can hold becomes infinite, with its sign."""
    number: Any = value  # for type checkers, which do not know that a `Real` can be compared with 0
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def check_numbers(name: str, value: Any) -> NDArray[np.float64]:
    """Return an array of real numbers as float64.

    Args:
        name: name of the argument, for the message.
        value: array or nested sequences of real numbers. The type may be one that NumPy does not define, such as
            bfloat16.

    Raises:
        TypeError: if it contains a value that is not a real number.
        ValueError: if its rows have different lengths.

    Examples:
        >>> from lowlevel_simclr.contract.checks import check_numbers
        >>> check_numbers("weight", [1, 2]).tolist()
        [1.0, 2.0]
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiuV":
        raise TypeError(f"{name} is {describe_value(value)}. It must be an array of numbers.")
    return array.astype(np.float64)


def check_same_shape(shapes: Sequence[tuple[Any, ...]]) -> None:
    """Check that the weight, the gradient and the velocity (momentum) of a variable have the same shape.

    Args:
        shapes: the three shapes. An unknown length is None.

    Raises:
        ValueError: if the numbers of axes differ, or if known lengths differ.
    """
    alike = len({len(shape) for shape in shapes}) == 1
    if not alike or any(len(set(lengths) - {None}) > 1 for lengths in zip(*shapes)):
        weight, gradient, velocity = shapes
        raise ValueError(
            f"weight, gradient and velocity must have the same shape, but have {weight}, {gradient} and {velocity}. "
            "Pass all three for the same variable."
        )


def check_recipe(recipe: Any) -> Any:
    """Return `recipe`, the ranges and probabilities of the random views, unchanged if views can be made with it.

    Args:
        recipe: a `settings.ViewRecipe`, or any object with the same attributes.

    Raises:
        TypeError: if an attribute is missing, or is neither a number nor a range of two numbers.
        ValueError: if a number is NaN or infinite, or if crop_area or crop_aspect is not above 0.
    """
    missing = [name for name in (*RANGES, *PROBABILITIES, "clip") if not hasattr(recipe, name)]
    if missing:
        raise TypeError(
            f"recipe is {describe_value(recipe)}. It must be a ViewRecipe, but it has no {missing[0]}. Pass "
            "ViewRecipe()."
        )
    for name in PROBABILITIES:
        check_number(f"recipe.{name}", getattr(recipe, name))
    for name in RANGES:
        _check_range(name, getattr(recipe, name))
    return recipe


def _check_range(name: str, bounds: Any) -> None:
    """Check that a range of a recipe is two numbers, and above 0 if it is the range of a crop."""
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise TypeError(f"recipe.{name} is {describe_value(bounds)}. It must be a range (low, high) of two numbers.")
    low, high = (check_number(f"recipe.{name}", bound) for bound in bounds)
    if name.startswith("crop") and min(low, high) <= 0:
        raise ValueError(f"recipe.{name} is ({low}, {high}). Both ends must be above 0.")


def check_index(index: Any) -> Any:
    """Return `index` unchanged if it is (N,) and integer.

    Args:
        index: array or tensor, the positions of images in the data set.

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
    """Check that every image has at least one pixel and lies inside its array.

    Args:
        sizes: (N, 2) integers, the height and width of each image in pixels.
        height: height of the arrays, in pixels.
        width: width of the arrays, in pixels.

    Raises:
        ValueError: if a size is below 1 pixel or larger than the array. The message names the row.
    """
    wrong = np.any((sizes < 1) | (sizes > (height, width)), axis=1)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"sizes[{row}] is {sizes[row, 0]} x {sizes[row, 1]} pixels. It must be at least 1 x 1 and at most "
            f"{height} x {width}, the size of the images."
        )


def check_counter(epoch: Any, index: NDArray[Any]) -> None:
    """Check that an epoch and the positions of images fit into 32 bits. The random numbers of views depend on both.

    Args:
        epoch: whole number.
        index: (N,) integers, the positions of images in the data set.

    Raises:
        TypeError: if epoch is not a whole number.
        ValueError: if epoch or an index is not in [0, 2^32).
    """
    if not 0 <= check_whole("epoch", epoch) < WORDS:
        raise ValueError(f"epoch is {epoch}. It must be in [0, 2^32).")
    wrong = (index < 0) | (index >= WORDS)
    if np.any(wrong):
        place = int(np.argmax(wrong))
        raise ValueError(f"index[{place}] is {index[place]}. An index must be in [0, 2^32).")


def check_image_sides(height: Any, width: Any) -> tuple[int, int]:
    """Return height and width as ints if images of this size can be cropped.

    Args:
        height: height of the images, in pixels.
        width: width of the images, in pixels.

    Raises:
        TypeError: if height or width is not a whole number.
        ValueError: if height or width is not in [1, 2^15).
    """
    height, width = check_whole("height", height), check_whole("width", width)
    if not (1 <= height < LONGEST_SIDE and 1 <= width < LONGEST_SIDE):
        raise ValueError(f"The images have {height} x {width} pixels. Height and width must be in [1, 2^15).")
    return height, width


def check_finite(params: ViewParams) -> None:
    """Check that no floating-point parameter of a view is NaN or infinite.

    Args:
        params: parameters as arrays or eager tensors.

    Raises:
        ValueError: if a parameter is NaN or infinite. The message names the row.
    """
    for name in FINITE_FIELDS:
        values = np.asarray(getattr(params, name))
        wrong = ~np.isfinite(values)
        if np.any(wrong):
            row = int(np.argmax(wrong))
            raise ValueError(f"Row {row} has {name} {values[row]}. It must be finite. Draw the parameters again.")


def check_order(params: ViewParams) -> None:
    """Check that each view runs each of the four colour operations once.

    Args:
        params: parameters as arrays or eager tensors.

    Raises:
        ValueError: if a row of `order` is not a permutation of 0, 1, 2 and 3. The message names the row.
    """
    order = np.asarray(params.order)
    wrong = np.any(np.sort(order, axis=1) != np.arange(4), axis=1)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Row {row} has the order {tuple(order[row].tolist())}. It must hold each of 0, 1, 2 and 3 once. Draw the "
            "parameters again."
        )


def check_scaling(mean: Any, std: Any, channels: int) -> None:
    """Check the mean and the standard deviation that scale the pixels of views.

    Args:
        mean: one number, or one number for each channel, or None.
        std: one number, or one number for each channel, or None.
        channels: C, number of channels.

    Raises:
        ValueError: if only one of mean and std is given, if one of them has neither 1 nor C numbers, if a number is NaN
            or infinite, or if a std is not positive.
    """
    if (mean is None) != (std is None):
        raise ValueError(f"mean is {mean} and std is {std}. Give both or neither.")
    if mean is None:
        return
    numbers = [np.asarray(given, np.float64).reshape(-1) for given in (mean, std)]
    fit = all(len(given) in (1, channels) and np.all(np.isfinite(given)) for given in numbers)
    if not fit or not np.all(numbers[1] > 0):
        raise ValueError(
            f"mean is {mean} and std is {std}. Each must be one number, or one for each of the {channels} "
            "channels, all must be finite, and std must be above 0."
        )


def complete_scaling(mean: Any, std: Any, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the number to subtract from each channel, and the number to divide it by: (C,) float64 each.

    The implementations in TensorFlow use this function. The reference in NumPy has its own code for the scaling.

    Args:
        mean: one number, or one number for each channel, or None.
        std: one number, or one number for each channel, or None.
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


def check_images(shape: tuple[Any, ...], dtype: str, size: Any) -> int:
    """Return the size as an int if views can be made from images of this shape and type.

    Args:
        shape: shape of the images, (N, H, W, C). N may be None.
        dtype: name of the type of the images.
        size: S, side of a view in pixels.

    Raises:
        TypeError: if size is not a whole number.
        ValueError: if shape, type or size are wrong.
    """
    if len(shape) != 4 or not all(shape[1:]):
        raise ValueError(f"images have shape {tuple(shape)}. They must be (N, H, W, C), and only N may be unknown.")
    if dtype not in FULL_SCALE and not dtype.startswith("float"):
        raise ValueError(f"images are {dtype}. They must be uint8, uint16 or floating-point.")
    size = check_whole("size", size)
    if not 1 <= size < LONGEST_SIDE:
        raise ValueError(f"size is {size}. The side of a view must be in [1, 2^15) pixels.")
    return size


def check_fields(params: Any) -> ViewParams:
    """Return the parameters of views as ViewParams.

    Args:
        params: ViewParams, or a tuple of its eleven fields.

    Raises:
        TypeError: if `params` is neither of these.
    """
    if not isinstance(params, tuple) or len(params) != len(ViewParams._fields):
        raise TypeError(f"params are {describe_value(params)}. They must be ViewParams. Call draw_view_params.")
    return ViewParams(*params)


def check_rows(params: ViewParams, count: int | None) -> None:
    """Check that every parameter has two rows for each image.

    Args:
        params: parameters as arrays or tensors.
        count: N, number of images. None if it is unknown. Then only the number of axes is checked.

    Raises:
        ValueError: if a shape is wrong.
    """
    rows = None if count is None else 2 * count
    for name, field in zip(ViewParams._fields, params):
        expected = (rows, 4) if name in ("box", "order") else (rows,)
        shape = tuple(field.shape)
        if len(shape) != len(expected) or any(
            None not in (length, wanted) and length != wanted for length, wanted in zip(shape, expected)
        ):
            raise ValueError(
                f"{name} has shape {shape} for {count} images. It must have shape {expected}, two rows for each image."
            )


def check_largest_pixel(largest: float) -> None:
    """Check that the pixels of floating-point images look like pixels in [0, 1].

    Args:
        largest: the largest pixel. Values a little above 1 are accepted, because some methods of resizing overshoot.

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
        ValueError: if a parameter does not have 2N rows, if a crop box is empty or reaches beyond the image, if a
            floating-point parameter is NaN or infinite, if an order does not hold each operation once, or if C is not 3
            and a view is grey or changes saturation or hue.
    """
    check_rows(params, count)
    y, x, h, w = np.asarray(params.box, np.int64).T
    wrong = (y < 0) | (x < 0) | (h < 1) | (w < 1) | (y + h > height) | (x + w > width)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Row {row} has the box (y, x, height, width) = {tuple(int(n) for n in params.box[row])}. It must hold a "
            f"pixel and lie inside the image of {height} x {width} pixels."
        )
    check_finite(params)
    check_order(params)
    coloured = (params.saturation != 1) | (params.hue != 0) | params.grey
    if channels != 3 and np.any(coloured):
        raise ValueError(
            f"Row {int(np.argmax(coloured))} is grey or changes saturation or hue, but the images have {channels} "
            "channels, not 3. Set grey_probability to 0, and set jitter_probability to 0 or saturation to 1 and "
            "hue to 0."
        )
