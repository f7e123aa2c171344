"""Computes the pixels of views in stock TensorFlow, a whole batch at once. The native op is compared with this version.

`reference.make_views` defines the result. This version makes few passes over memory. None of its shapes depends on the
data, so it runs eagerly, in graphs and under jit_compile. It is fastest under jit_compile.

Crop, resize and flip are two batched matrix products, with one weight matrix for each view and axis.

The four colour operations can come in 24 orders. One sequence of steps covers all of them: turn, affine, turn, affine,
turn. One affine step is brightness and the other is contrast: each multiplies a channel by a factor and adds a shift. A
turn applies saturation, hue, both or neither. An operation that it does not apply gets a neutral factor. If saturation
and hue are neighbours in the order, one turn can apply both, because their order does not matter. The order of a view
decides which of the three turns applies its saturation, and which applies its hue.

A turn changes the hue without computing it. Let V be the largest and m the smallest of a pixel's channels, C = V - m,
and t = V - channel. Let (r, g, b) be the pure colour at the angle of the turn: one of the three is 1, one is 0, and
`middle` is the third. The turned pixel has

    t_red = clip(k_1 R + k_2 G + k_3 B + middle V - (1 - middle) m, 0, C),    k = 1 - 2 (r, b, g)

The formulas for green and blue have the same form, with each colour replaced by the next one (red, green, blue, red).
The formula is exact, because its two sides are linear in each sixth of the hue circle and agree at its ends. Saturation
then multiplies t by a factor f, or by V / C if that is smaller.

Grey and std together are one (C, C) matrix for each view. The product with this matrix also moves the channels to the
last axis. Then the mean is subtracted.

Where matrix products have reduced precision (TensorFloat-32 on recent GPUs), the pixels too are only correct to about
10 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.checks import check_images, check_params, complete_scaling
from lowlevel_simclr.contract.constants import FULL_SCALE, GREY_WEIGHTS
from lowlevel_simclr.contract.view_checks import are_numbers_sound, convert_params, refuse_large_pixels
from lowlevel_simclr.contract.view_params import BRIGHTNESS, CONTRAST, HUE, SATURATION, ViewParams

Planes = list[tf.Tensor]  # C tensors (2N, S * S), float32

_NOWHERE = 1e9  # a position too far away for any triangle of weights to reach
_HUGE = 1e30  # beyond any pixel, and still finite when multiplied
_TINY = 1e-30  # positive, and too small to change any pixel


def make_views(
    images: tf.Tensor,
    params: ViewParams,
    size: int,
    dtype: tf.DType = tf.float32,
    mean: Any = None,
    std: Any = None,
    *,
    blur: bool = True,
) -> tf.Tensor:
    """Make both views of every image.

    Args:
        images: (N, H, W, C) images. They are uint8 or uint16, which are scaled to [0, 1], or floating-point in [0, 1].
            Only N may be unknown.
        params: parameters with 2N rows. Rows i and N + i are the views of image i.
        size: S, side of a view in pixels.
        dtype: type of the result. All arithmetic is in float32.
        mean: one number, or one for each channel. It is subtracted from the pixels at the end. None leaves the pixels
            in [0, 1].
        std: one number, or one for each channel. The pixels are divided by it after the mean is subtracted. Give both
            `mean` and `std`, or neither.
        blur: whether to compute the blur. If False, no view is blurred, whatever its sigma. Pass False if no view is
            ever blurred, because the blur takes as long as the crop, even for views with sigma 0.

    Returns:
        (2N, S, S, C) of `dtype`. If a view's `clip` is true, its pixels are in [0, 1] before mean and std apply.

    Raises:
        TypeError: if size is not a whole number, or if params are not ViewParams of the types in `ViewParams`.
        ValueError: if a shape or type is wrong. In eager mode also if `reference.make_views` would refuse the
            parameters. A graph does not know their values. So a graph makes a view all NaN if its box is empty or
            leaves the image (`draw_view_params` draws no such box for an index in its range), if a factor is NaN or
            infinite, if its order does not hold each operation once, or if the view changes colours and C is not 3.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> from lowlevel_simclr.config.settings import ViewRecipe
        >>> recipe = ViewRecipe()
        >>> params = stock.draw_view_params(seed=0, epoch=0, index=tf.range(8), recipe=recipe, height=32, width=32)
        >>> stock.make_views(tf.zeros([8, 32, 32, 3], tf.uint8), params, size=24).shape
        TensorShape([16, 24, 24, 3])
    """
    images = tf.convert_to_tensor(images)
    size = check_images(tuple(images.shape), images.dtype.name, size)
    params = convert_params(params, images.shape[0])
    refuse_large_pixels(images)
    if tf.executing_eagerly():
        check_params(ViewParams(*(field.numpy() for field in params)), *images.shape)
    planes = _change_colours(_crop(images, params, size), params)
    if blur and _count_taps(size) > 1:
        planes = _blur(planes, params.blur_sigma, size)
    views = _finish(_clip(planes, params.clip), _is_sound(params, images.shape), params.grey, mean, std)
    rows = None if images.shape[0] is None else 2 * images.shape[0]
    views = tf.reshape(tf.cast(views, dtype), (-1 if rows is None else rows, size, size, images.shape[-1]))
    return tf.ensure_shape(views, (rows, size, size, images.shape[-1]))


# Crop


def _crop(images: tf.Tensor, params: ViewParams, size: int) -> Planes:
    """Crop, resize and flip every view, and scale its pixels to [0, 1]."""
    _, height, width, channels = images.shape
    y, x, h, w = tf.unstack(params.box, axis=1)  # (2N,) each
    full = FULL_SCALE.get(images.dtype.name, 1.0)
    down = _compute_weights(_compute_centres(h, size), y, h, size, height, axis=2) / full  # (2N, S, H)
    across = _compute_weights(_compute_centres(w, size, params.flip), x, w, size, width, axis=1)  # (2N, W, S)
    lines = tf.cast(tf.transpose(images, (0, 1, 3, 2)), tf.float32)  # (N, H, C, W)
    lines = tf.reshape(lines, (tf.shape(params.box)[0] // 2, height, channels * width))  # (N, H, C W)
    # One product for each view. A product that broadcasts the images over both views corrupts the memory of TensorFlow
    # 2.21 with oneDNN where N is 1.
    lines = tf.concat([tf.matmul(of_view, lines) for of_view in tf.split(down, 2)], axis=0)  # (2N, S, C W)
    pixels = tf.matmul(tf.reshape(lines, (-1, size * channels, width)), across)  # (2N, S C, S)
    pixels = tf.reshape(pixels, (-1, size, channels, size))
    return [tf.reshape(pixels[:, :, channel], (-1, size * size)) for channel in range(channels)]


def _compute_centres(length: tf.Tensor, size: int, flip: tf.Tensor | None = None) -> tf.Tensor:
    """Return the centres (2N, size) of a view's pixels in boxes of `length` (2N,).

    The unit is 1 / (2 size) source pixel.
    """
    odd = np.arange(1, 2 * size, 2, dtype=np.int32)
    order = odd[None] if flip is None else tf.where(flip[:, None], odd[::-1], odd)
    return tf.cast(length[:, None] * order, tf.float32)


def _compute_weights(
    centres: tf.Tensor, start: tf.Tensor, length: tf.Tensor, size: int, source: int, axis: int
) -> tf.Tensor:
    """Return the weights of `source` pixels in each of a view's `size` pixels, along one axis of the image.

    Positions are counted in units of 1 / (2 size) source pixel. In these units the triangles of weights are integers,
    which are exact in float32 up to 2^24. One division then makes the weights of a view's pixel sum to 1.

    Args:
        centres: (2N, size) centres of the view's pixels inside the box.
        start: (2N,) first pixel of each box.
        length: (2N,) number of pixels of each box.
        size: S, number of pixels of the view along this axis.
        source: number of pixels of the image along this axis.
        axis: axis of the result that holds the `source` pixels, 1 or 2.

    Returns:
        (2N, size, source) if axis is 2, (2N, source, size) if axis is 1.
    """
    pixel = np.arange(source, dtype=np.int32) - start[:, None]  # (2N, source), inside the box
    inside = (pixel >= 0) & (pixel < length[:, None])
    pixels = tf.where(inside, tf.cast((2 * pixel + 1) * size, tf.float32), _NOWHERE)
    reach = tf.cast(2 * tf.maximum(length, size), tf.float32)[:, None, None]  # half the width of a triangle
    distance = tf.abs(tf.expand_dims(pixels, 3 - axis) - tf.expand_dims(centres, axis))
    triangles = tf.nn.relu(reach - distance)
    return triangles / tf.reduce_sum(triangles, axis=axis, keepdims=True)


# Colour


def _change_colours(planes: Planes, params: ViewParams) -> Planes:
    """Apply the colour operations in each view's order (turn, affine, turn, affine, turn), without the last clip."""
    when = [_find_slot(params.order, operation) for operation in range(4)]  # (2N,) each
    brightness_first = when[BRIGHTNESS] < when[CONTRAST]
    for part in range(3):
        if len(planes) == 3:
            saturates, turns = (_count_affine_before(when, operation) == part for operation in (SATURATION, HUE))
            saturation, hue = tf.where(saturates, params.saturation, 1.0), tf.where(turns, params.hue, 0.0)
            planes = _turn_colours(planes, saturation, hue, params.clip)
        if part < 2:
            planes = _change_affinely(planes, brightness_first if part == 0 else ~brightness_first, params)
    return planes


def _find_slot(order: tf.Tensor, operation: int) -> tf.Tensor:
    """Return the position of an operation in each view's order: (2N, 4) -> (2N,) int32."""
    return tf.reduce_sum(tf.cast(order == operation, tf.int32) * tf.range(4), axis=1)


def _count_affine_before(when: list[tf.Tensor], operation: int) -> tf.Tensor:
    """Return how many of brightness and contrast come before an operation: (2N,) int32, 0, 1 or 2."""
    return sum(tf.cast(when[other] < when[operation], tf.int32) for other in (BRIGHTNESS, CONTRAST))


def _change_affinely(planes: Planes, is_brightness: tf.Tensor, params: ViewParams) -> Planes:
    """Apply brightness where `is_brightness` (2N,) is true and contrast elsewhere, then clip."""
    factor = tf.where(is_brightness, params.brightness, params.contrast)[:, None]  # (2N, 1)
    of_mean = tf.where(is_brightness, 0.0, 1 - params.contrast)[:, None]
    shift = tf.where(is_brightness, params.brightness_shift, 0.0)[:, None]
    means = [tf.reduce_mean(plane, axis=1, keepdims=True) for plane in planes]
    moved = [plane * factor + (of_mean * mean + shift) for plane, mean in zip(planes, means, strict=True)]
    return _clip(moved, params.clip)


def _turn_colours(planes: Planes, saturation: tf.Tensor, hue: tf.Tensor, clip: tf.Tensor) -> Planes:
    """Multiply the saturation by `saturation` (2N,) and move the hue by `hue` (2N,) of the hue circle, in one step.

    Rounding may leave the result slightly below 0.
    """
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    least = tf.minimum(tf.minimum(red, green), blue)
    chroma = value - least
    # If `clip` is true, V / C limits the factor. Otherwise the factor has no limit. The numerator is never 0, so a grey
    # pixel, whose C is 0, gives infinity and not NaN.
    bound = tf.maximum(value, tf.where(clip, _TINY, _HUGE)[:, None]) / chroma
    factor = tf.minimum(tf.maximum(saturation, 0.0)[:, None], bound)
    pure = _compute_pure_colour(hue)  # (2N, 1) each
    middle = tf.add_n(pure) - 1
    own, after, before = (1 - 2 * share for share in (pure[0], pure[2], pure[1]))
    common = middle * value - (1 - middle) * least

    def turn(channel: tf.Tensor, following: tf.Tensor, preceding: tf.Tensor) -> tf.Tensor:
        below = tf.add_n([own * channel, after * following, before * preceding, common])
        return value - factor * tf.minimum(tf.nn.relu(below), chroma)

    return [turn(red, green, blue), turn(green, blue, red), turn(blue, red, green)]


def _compute_pure_colour(hue: tf.Tensor) -> Planes:
    """Return red, green and blue of full value and saturation at a hue (2N,), a share of the circle: (2N, 1) each."""
    sixths = 6 * (hue - tf.floor(hue))[:, None]
    red = tf.abs(sixths - 3) - 1
    green, blue = 2 - tf.abs(sixths - 2), 2 - tf.abs(sixths - 4)
    return [tf.clip_by_value(share, 0.0, 1.0) for share in (red, green, blue)]


def _clip(planes: Planes, clip: tf.Tensor) -> Planes:
    """Clip to [0, 1] the views whose `clip` is true. Leave the others as they are."""
    low, high = tf.where(clip, 0.0, -_HUGE)[:, None], tf.where(clip, 1.0, _HUGE)[:, None]
    return [tf.minimum(tf.maximum(plane, low), high) for plane in planes]


# Blur, grey, scaling


def _blur(planes: Planes, sigma: tf.Tensor, size: int) -> Planes:
    """Apply the Gaussian blur as two matrix products. With sigma 0 the matrix is the identity."""
    across = _compute_blur_matrices(sigma, size)  # (2N, S, S)
    pixels = tf.stack(planes, axis=1)  # (2N, C, S S)
    lines = tf.matmul(tf.reshape(pixels, (-1, len(planes) * size, size)), across)
    lines = tf.reshape(lines, (-1, len(planes), size, size))
    pixels = tf.matmul(across[:, None], lines, transpose_a=True)
    return tf.unstack(tf.reshape(pixels, (-1, len(planes), size * size)), axis=1)


def _count_taps(size: int) -> int:
    """Return the number of taps of the blur's kernel for views of `size` pixels: a tenth, plus one if that is even."""
    return size // 10 | 1


def _compute_blur_matrices(sigma: tf.Tensor, size: int) -> tf.Tensor:
    """Return matrices (2N, S, S). Column j holds the weights of a line's pixels in blurred pixel j."""
    taps = _count_taps(size)
    steps = np.arange(taps) - taps // 2
    reached = np.abs(steps[:, None] + np.arange(size))  # (taps, S), mirrored about pixel 0 ...
    reached = size - 1 - np.abs(size - 1 - reached)  # ... and about the last one
    places = (reached[:, None, :] == np.arange(size)[:, None]).astype(np.float32)  # (taps, S, S)
    blurs = sigma[:, None] > 0
    width = tf.where(blurs, sigma[:, None], 1.0)
    gaussian = tf.exp(-np.square(steps).astype(np.float32) / (2 * width * width))  # (2N, taps)
    gaussian = tf.where(blurs, gaussian, (steps == 0).astype(np.float32))
    gaussian /= tf.reduce_sum(gaussian, axis=1, keepdims=True)
    return tf.reshape(tf.matmul(gaussian, places.reshape(taps, size * size)), (-1, size, size))


def _is_sound(params: ViewParams, shape: tf.TensorShape) -> tf.Tensor:
    """Return whether each view can be made from images of this shape: (2N,) bool."""
    y, x, h, w = tf.unstack(params.box, axis=1)
    sound = (y >= 0) & (x >= 0) & (h >= 1) & (w >= 1) & (y + h <= shape[1]) & (x + w <= shape[2])
    if shape[-1] != 3:
        sound &= (params.saturation == 1) & (params.hue == 0) & ~params.grey
    return sound & are_numbers_sound(params)


def _finish(planes: Planes, sound: tf.Tensor, grey: tf.Tensor, mean: Any, std: Any) -> tf.Tensor:
    """Apply grey, mean and std, and bring the channels together: (2N, S * S, C). NaN where `sound` is false."""
    channels = len(planes)
    offset, scale = complete_scaling(mean, std, channels)
    mix = np.tile(np.array(GREY_WEIGHTS)[:, None], (1, 3)) if channels == 3 else np.eye(channels)
    own, mixed = (np.float32(matrix / scale) for matrix in (np.eye(channels), mix))
    matrices = tf.where(grey[:, None, None], mixed, own)  # (2N, C, C)
    matrices = tf.where(sound[:, None, None], matrices, np.nan)
    pixels = tf.matmul(tf.stack(planes, axis=1), matrices, transpose_a=True)
    return pixels if mean is None else pixels - np.float32(offset / scale)
