"""Draws the random parameters of every view (augmented image) in stock TensorFlow.

The module `reference.draw_view_params` defines the parameters. Each view needs thirteen blocks of four random words of
32 bits. All of them are drawn at once, as four tensors (2N, 13). The integers of the crop boxes are computed in
float64, as in the reference. So all integers are equal to the reference's.
"""

from __future__ import annotations

import math

import tensorflow as tf

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.contract.checks import check_image_sides, check_index, check_recipe
from lowlevel_simclr.contract.philox import CROP, FACTORS, ORDER_AND_BLUR, SWITCHES, split_seed
from lowlevel_simclr.contract.view_checks import check_known_counter, find_sound_rows, list_frames, mark_rows
from lowlevel_simclr.contract.view_params import PERMUTATIONS, ViewParams
from lowlevel_simclr.stock.philox import draw_words, to_uniform

_PURPOSES = (*CROP, SWITCHES, FACTORS, ORDER_AND_BLUR)


def draw_view_params(
    seed: int,
    epoch: int | tf.Tensor,
    index: tf.Tensor,
    recipe: ViewRecipe,
    height: int,
    width: int,
    sizes: tf.Tensor | None = None,
) -> ViewParams:
    """Draw the parameters of both views of N images. They depend only on (seed, epoch, index, view), sizes and recipe.

    Every box lies inside the image and holds at least one pixel.

    Args:
        seed: seed of the run, in [0, 2^64).
        epoch: epoch number in [0, 2^32), a number or an integer scalar.
        index: (N,) integer positions of the images in the data set, each in [0, 2^32). N may be unknown.
        recipe: the ranges and probabilities of the parameters.
        height: height of the images, in pixels, in [1, 2^15).
        width: width of the images, in pixels, in [1, 2^15).
        sizes: (N, 2) integers, the height and width of each image in the upper left corner of its array. None: every
            image fills its array.

    Returns:
        ViewParams of tensors with 2N rows: all first views, then all second views.

    Raises:
        TypeError: if seed, epoch, height or width is not a whole number. Also if recipe lacks an attribute of a
            ViewRecipe, or has one of a wrong type.
        ValueError: if index is not (N,) integers or sizes not (N, 2), or if seed, height or width is out of range.
            Also if a number of the recipe is not finite, or a bound of its crops is not above 0.
            Also if epoch, an index or a size is out of range and its value is known. While a graph is built, such a
            value is not known, so nothing is raised. Instead, the four numbers of the view's box are -1, and
            `make_views` makes the pixels of this view NaN.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> from lowlevel_simclr.config.settings import ViewRecipe
        >>> recipe = ViewRecipe()
        >>> params = stock.draw_view_params(seed=0, epoch=0, index=tf.range(8), recipe=recipe, height=32, width=32)
        >>> params.box.shape, params.flip.shape
        (TensorShape([16, 4]), TensorShape([16]))
    """
    index = check_index(tf.convert_to_tensor(index))
    check_known_counter(epoch, index)
    height, width = check_image_sides(height, width)
    check_recipe(recipe)
    frames = list_frames(sizes, index, height, width)  # (N, 2) or (1, 2)
    words = _draw_all_words(seed, epoch, index)  # four tensors (2N, 13)
    boxes = _choose_boxes([word[:, : len(CROP)] for word in words], recipe, frames)
    switches, factors, last = ([word[:, k] for word in words] for k in range(len(CROP), len(_PURPOSES)))
    flips, jitters, greys, blurs = (to_uniform(word) for word in switches)  # (2N,) each
    sigma = _scale_to_range(recipe.blur_sigma, last[1])
    return ViewParams(
        box=mark_rows(boxes, find_sound_rows(epoch, index, frames, height, width)),
        flip=flips < recipe.flip_probability,
        **_draw_factors([*factors, last[2]], jitters < recipe.jitter_probability, recipe),
        order=tf.gather(tf.constant(PERMUTATIONS), _draw_permutation(last[0])),
        clip=tf.fill(tf.shape(flips), recipe.clip),
        grey=greys < recipe.grey_probability,
        blur_sigma=tf.where(blurs < recipe.blur_probability, sigma, 0.0),
    )


def _draw_all_words(seed: int, epoch: int | tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return the four random words of each of the 13 blocks of every row: (2N, 13) uint32 each."""
    rows = tf.concat([index, index], axis=0)[:, None]  # (2N, 1)
    view = tf.concat([tf.zeros_like(index), tf.ones_like(index)], axis=0)[:, None]  # (2N, 1)
    return draw_words(epoch, rows, view, tf.constant([_PURPOSES], tf.int64), key=split_seed(seed))


def _choose_boxes(words: list[tf.Tensor], recipe: ViewRecipe, frames: tf.Tensor) -> tf.Tensor:
    """Return the first attempt that fits, or the central crop if none fits: (2N, 4) int32.

    Args:
        words: four random words of each attempt, (2N, 10) each.
        recipe: the ranges of area and aspect.
        frames: (N, 2) or (1, 2), the height and width of each image or of all images, in pixels.
    """
    both = frames if frames.shape[0] == 1 else tf.concat([frames, frames], axis=0)  # of both views
    height, width = tf.split(tf.cast(both, tf.float64), 2, axis=1)  # (2N, 1) or (1, 1) each
    u0, u1, u2, u3 = (tf.cast(to_uniform(word), tf.float64) for word in words)
    low, high = recipe.crop_area
    area = height * width * (low + (high - low) * u0)
    log_low, log_high = (math.log(bound) for bound in recipe.crop_aspect)
    aspect = tf.exp(log_low + (log_high - log_low) * u1)
    w, h = tf.math.rint(tf.sqrt(area * aspect)), tf.math.rint(tf.sqrt(area / aspect))
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)  # (2N, 10)
    y, x = tf.floor(u2 * (height - h + 1)), tf.floor(u3 * (width - w + 1))
    candidates = tf.stack([y, x, h, w], axis=-1)  # (2N, 10, 4)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)  # argmax returns the first maximum, and 0 if none fits
    chosen = tf.gather(candidates, first, axis=1, batch_dims=1)  # (2N, 4)
    central = _find_central_crop(recipe.crop_aspect, height, width)
    return tf.cast(tf.where(tf.reduce_any(fits, axis=1)[:, None], chosen, central), tf.int32)


def _find_central_crop(crop_aspect: tuple[float, float], height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the largest box in the middle of each image whose aspect, width / height, is in the range.

    Args:
        crop_aspect: smallest and largest aspect.
        height: (n, 1) float64, in pixels.
        width: (n, 1) float64, in pixels.

    Returns:
        (n, 4) float64: y, x, height, width in pixels.
    """
    low, high = (tf.constant(bound, tf.float64) for bound in crop_aspect)
    aspect = width / height
    h = tf.where(aspect < low, tf.maximum(tf.math.rint(width / low), 1.0), height)
    w = tf.where(aspect > high, tf.maximum(tf.math.rint(height * high), 1.0), width)
    return tf.concat([tf.floor((height - h) / 2), tf.floor((width - w) / 2), h, w], axis=1)


def _draw_factors(words: list[tf.Tensor], jittered: tf.Tensor, recipe: ViewRecipe) -> dict[str, tf.Tensor]:
    """Return the factors of the colour operations from five words (2N,). Views without jitter get neutral factors."""
    names = ("brightness", "contrast", "saturation", "hue", "brightness_shift")
    return {
        name: tf.where(jittered, _scale_to_range(getattr(recipe, name), word), neutral)
        for name, word, neutral in zip(names, words, (1.0, 1.0, 1.0, 0.0, 0.0), strict=True)
    }


def _scale_to_range(bounds: tuple[float, float], word: tf.Tensor) -> tf.Tensor:
    """Return low + (high - low) u for the uniform number u of each word, with every step in float32."""
    low, high = (tf.constant(bound, tf.float32) for bound in bounds)
    return low + (high - low) * to_uniform(word)


def _draw_permutation(word: tf.Tensor) -> tf.Tensor:
    """Return a number in 0 .. 23 for each word: word x 24 / 2^32, rounded down."""
    product = tf.cast(word, tf.uint64) * tf.constant(24, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(product, tf.constant(32, tf.uint64)), tf.int32)
