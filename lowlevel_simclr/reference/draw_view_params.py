"""Draws the random parameters of every view (augmented image), as in SimCLR, appendix A.

    area ~ U(crop_area) H W,   log(aspect) ~ U(log crop_aspect)
    w = round(sqrt(area aspect)),   h = round(sqrt(area / aspect))

H and W are the height and width of the image, h and w those of the crop box. U is the uniform distribution. The size of
the crop box is drawn up to ten times, until the box fits into the image. The place of the box is uniform over all
places where it fits. If none of the ten boxes fits, the box is the central crop, the largest allowed box in the middle.
All of this is computed in float64, so that every implementation rounds to the same integers.

Images of different sizes lie in the upper left corners of arrays of one size. Then H and W are those of the image, and
no box reaches the padding of the array.

The same arguments always give the same parameters. Whether a flip, a blur and so on happens is decided by comparing a
random number u with the probability in float32. The factor of a colour operation (how strong it is) is low + (high -
low) u in float32, and the bounds low and high are rounded to float32 first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowlevel_simclr.contract.checks import (
    check_counter,
    check_frames,
    check_image_sides,
    check_index,
    check_recipe,
    check_sizes,
)
from lowlevel_simclr.contract.philox import CROP, FACTORS, ORDER_AND_BLUR, SWITCHES, Words, draw_words, to_uniform
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams

Uniform = NDArray[np.float32]
Side = int | NDArray[np.int64]  # in pixels: one number for all images, or an array (2N,) with one for each view


def draw_view_params(
    seed: int,
    epoch: int,
    index: ArrayLike,
    recipe: Any,
    height: int,
    width: int,
    sizes: ArrayLike | None = None,
) -> ViewParams:
    """Draw the parameters of both views of N images.

    They depend only on the seed, the epoch, the index of the image, the number of the view (0 or 1), the size of the
    image and the recipe.

    Args:
        seed: seed of the run, in [0, 2^64).
        epoch: epoch number in [0, 2^32).
        index: (N,) integer positions of the images in the data set, each in [0, 2^32).
        recipe: the ranges and probabilities, as a `settings.ViewRecipe` or any object with its attributes.
        height: height of the images, in pixels, in [1, 2^15).
        width: width of the images, in pixels, in [1, 2^15).
        sizes: (N, 2) integers, the height and width of each image in the upper left corner of its array. None: every
            image fills its array.

    Returns:
        ViewParams of arrays with 2N rows: all first views, then all second views.

    Raises:
        TypeError: if seed, epoch, height or width is not a whole number. Also if recipe lacks an attribute of a
            ViewRecipe, or has one of a wrong type.
        ValueError: if index is not (N,) integers or sizes not (N, 2), or if seed, epoch, an index, height, width or a
            size is out of range. Also if a number of the recipe is not finite, or a bound of its crops is not above 0.

    Examples:
        >>> import numpy as np
        >>> from lowlevel_simclr import reference
        >>> from lowlevel_simclr.config.settings import ViewRecipe
        >>> recipe = ViewRecipe()
        >>> params = reference.draw_view_params(seed=0, epoch=0, index=range(8), recipe=recipe, height=32, width=32)
        >>> params.box.shape, params.flip.shape
        ((16, 4), (16,))
    """
    places = check_index(np.asarray(index))
    check_counter(epoch, places)
    height, width = check_image_sides(height, width)
    check_recipe(recipe)
    if sizes is not None:
        frames = check_sizes(np.asarray(sizes), len(places))
        check_frames(frames, height, width)
        height, width = np.tile(frames.astype(np.int64), (2, 1)).T  # (2N,) each
    rows = np.concatenate([places, places])  # (2N,)
    view = np.repeat([0, 1], len(places))  # (2N,)

    def draw(purpose: int) -> Words:
        return draw_words(seed, epoch, rows, view, purpose)  # (2N, 4)

    flips, jitters, greys, blurs = to_uniform(draw(SWITCHES)).T  # (2N,) each
    last = draw(ORDER_AND_BLUR)
    jittered = jitters < np.float32(recipe.jitter_probability)
    blurred = blurs < np.float32(recipe.blur_probability)
    return ViewParams(
        box=_choose_boxes([draw(attempt) for attempt in CROP], recipe, height, width),
        flip=flips < np.float32(recipe.flip_probability),
        **_draw_factors(to_uniform(draw(FACTORS)), to_uniform(last)[:, 2], jittered, recipe),
        order=PERMUTATIONS[_draw_permutation(last[:, 0])],
        clip=np.full(len(rows), recipe.clip),
        grey=greys < np.float32(recipe.grey_probability),
        blur_sigma=np.where(blurred, _scale_to_range(recipe.blur_sigma, to_uniform(last)[:, 1]), np.float32(0)),
    )


def _choose_boxes(attempts: list[Words], recipe: Any, height: Side, width: Side) -> NDArray[np.int32]:
    """Return the first attempt that fits, or the central crop if none fits: (2N, 4) int32."""
    central = np.stack(find_central_crop(recipe.crop_aspect, height, width), axis=-1).astype(np.int32)
    boxes = np.broadcast_to(central, (len(attempts[0]), 4)).copy()
    undecided = np.ones(len(boxes), bool)
    for words in attempts:
        candidates, fits = _place_boxes(words, recipe, height, width)
        chosen = undecided & fits
        boxes[chosen] = candidates[chosen]
        undecided &= ~fits
    return boxes


def _place_boxes(words: Words, recipe: Any, height: Side, width: Side) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the boxes of one attempt (2N, 4), and whether each fits the image (2N,)."""
    u = to_uniform(words).astype(np.float64)  # (2N, 4)
    low, high = recipe.crop_area
    area = height * width * (low + (high - low) * u[:, 0])
    log_low, log_high = np.log(recipe.crop_aspect[0]), np.log(recipe.crop_aspect[1])
    aspect = np.exp(log_low + (log_high - log_low) * u[:, 1])
    w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (1 <= w) & (w <= width) & (1 <= h) & (h <= height)
    y, x = np.floor(u[:, 2] * (height - h + 1)), np.floor(u[:, 3] * (width - w + 1))
    return np.stack([y, x, h, w], axis=-1), fits


def find_central_crop(crop_aspect: tuple[float, float], height: Side, width: Side) -> tuple[Side, Side, Side, Side]:
    """Return the largest box in the middle of the image whose aspect is in the range: y, x, height, width in pixels.

    Its aspect is that of the image, or the nearest end of the range.

    Args:
        crop_aspect: smallest and largest aspect, width / height.
        height: height of the image, in pixels, or of several images.
        width: width of the image, in pixels, or of several images.
    """
    aspect = np.clip(width / height, *crop_aspect)
    sides = np.minimum(height, width / aspect), np.minimum(width, height * aspect)
    h, w = (np.maximum(1, np.rint(side).astype(np.int64)) for side in sides)
    return (height - h) // 2, (width - w) // 2, h, w


def _draw_factors(u: Uniform, shift: Uniform, jittered: NDArray[np.bool_], recipe: Any) -> dict[str, Uniform]:
    """Return the factors of the colour operations from u (2N, 4) and shift (2N,).

    Views without jitter get neutral factors.
    """
    return {
        "brightness": np.where(jittered, _scale_to_range(recipe.brightness, u[:, 0]), np.float32(1)),
        "contrast": np.where(jittered, _scale_to_range(recipe.contrast, u[:, 1]), np.float32(1)),
        "saturation": np.where(jittered, _scale_to_range(recipe.saturation, u[:, 2]), np.float32(1)),
        "hue": np.where(jittered, _scale_to_range(recipe.hue, u[:, 3]), np.float32(0)),
        "brightness_shift": np.where(jittered, _scale_to_range(recipe.brightness_shift, shift), np.float32(0)),
    }


def _scale_to_range(bounds: tuple[float, float], u: Uniform) -> Uniform:
    """Return low + (high - low) u, with every step in float32."""
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    return low + (high - low) * u


def _draw_permutation(words: Words) -> NDArray[np.int64]:
    """Return a number in 0 .. 23 for each word: word x 24 / 2^32, rounded down."""
    return ((words.astype(np.uint64) * np.uint64(24)) >> np.uint64(32)).astype(np.int64)
