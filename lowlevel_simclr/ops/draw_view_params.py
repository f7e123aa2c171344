"""Draws the random parameters of every view with native kernels. A view is a random crop with changed colours.

kernels/draw_view_params/draw_view_params.h defines the results. The functions of the same name in `stock` (plain
TensorFlow) and `reference` (NumPy) have the same signature and draw the same integers and flags. The kernel stops at
the first crop that fits into the image. Under `jit_compile=True` and on a GPU the kernels run through XLA (`_route`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.checks import check_image_sides, check_index, check_recipe
from lowlevel_simclr.contract.philox import split_seed
from lowlevel_simclr.contract.view_checks import FIELD_TYPES, check_known_counter, list_frames
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _library, _route

_WIDTHS = ViewParams((4,), (), (), (), (), (), (), (4,), (), (), ())


def draw_view_params(
    seed: int,
    epoch: int | tf.Tensor,
    index: tf.Tensor,
    recipe: Any,
    height: int,
    width: int,
    sizes: tf.Tensor | None = None,
) -> ViewParams:
    """Draw the parameters of both views of N images. They depend only on (seed, epoch, index, view) and the recipe.

    Every crop box lies inside the image and contains at least one pixel.

    Args:
        seed: seed of the run, in [0, 2^64).
        epoch: epoch number in [0, 2^32), a number or an integer scalar.
        index: (N,) integer positions of the images in the data set, each in [0, 2^32). N may be unknown.
        recipe: a `settings.ViewRecipe` with ranges and probabilities.
        height: height of the images, in pixels, in [1, 2^15).
        width: width of the images, in pixels, in [1, 2^15).
        sizes: (N, 2) integers, the height and width of each image, if the images lie in the upper left corners of
            padded arrays. None: there is no padding.

    Returns:
        ViewParams of tensors with 2N rows: all first views, then all second views.

    Raises:
        TypeError: if seed, epoch, height or width is not a whole number. Also if recipe lacks an attribute of a
            ViewRecipe, or has one of a wrong type.
        ValueError: if index is not (N,) integers or sizes not (N, 2), or if seed, height or width is out of range.
            It is also raised if epoch, an index or a size is out of range and its value is known at the call.
            Also if a number of the recipe is not finite, or a bound of its crops is not above 0.
        tf.errors.InvalidArgumentError: in a graph, if epoch or an index is not in [0, 2^32), or if a size is out of
            range. On a GPU, no error is raised. Instead, all four numbers of the box of such a view are -1, and
            `make_views` sets its pixels to NaN.
        XlaRouteError: under jit_compile or on a GPU, if XLA cannot call the kernels in this TensorFlow.
        NotImplementedError: on a GPU, if the library was built without CUDA kernels.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> from lowlevel_simclr.config.settings import ViewRecipe
        >>> recipe = ViewRecipe()
        >>> params = ops.draw_view_params(seed=0, epoch=0, index=tf.range(8), recipe=recipe, height=32, width=32)
        >>> params.box.shape, params.flip.shape
        (TensorShape([16, 4]), TensorShape([16]))
    """
    index = check_index(tf.convert_to_tensor(index))
    check_known_counter(epoch, index)
    height, width = check_image_sides(height, width)
    check_recipe(recipe)
    frames = list_frames(sizes, index, height, width)
    index = tf.cast(index, tf.int64)
    key = tf.constant(split_seed(seed).astype(np.int64))
    epoch = tf.cast(tf.convert_to_tensor(epoch), tf.int64)
    numbers = tf.constant(_pack_recipe(recipe, height, width), tf.float64)
    rows = None if index.shape[0] is None else 2 * index.shape[0]
    shapes: list[tuple[Any, ...]] = [(rows, *width) for width in _WIDTHS]
    if _route.takes_custom_call(index):
        outputs = list(zip(shapes, FIELD_TYPES))
        return ViewParams(
            *_route.call_handler("lowlevel_simclr_draw_view_params", [index, frames, key, epoch, numbers], outputs)
        )
    drawn = _library.load_library().lowlevel_simclr_draw_view_params(
        index=index, sizes=frames, key=key, epoch=epoch, recipe=numbers
    )
    for field, shape in zip(drawn, shapes):
        field.set_shape(shape)
    return ViewParams(*drawn)


def _pack_recipe(recipe: Any, height: int, width: int) -> np.ndarray:
    """Return the recipe as the kernel reads it (`ViewRecipeNumbers` in draw_view_params.h): (25,) float64."""
    ranges = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue, recipe.brightness_shift)
    switches = (
        recipe.flip_probability,
        recipe.jitter_probability,
        recipe.grey_probability,
        recipe.blur_probability,
    )
    parts = (recipe.crop_area, np.log(recipe.crop_aspect), switches, *ranges, recipe.blur_sigma)
    return np.concatenate([*parts, (recipe.clip, height, width), recipe.crop_aspect]).astype(np.float64)
