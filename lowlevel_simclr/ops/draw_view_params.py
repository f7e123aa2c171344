"""The parameters of every view, drawn natively. kernels/draw_view_params/draw_view_params.h says how.

Name, signature, integers and flags as in `stock` and `reference`; attempts of a crop are drawn only until one fits.
Inside `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.checks import check_index, find_central_crop
from lowlevel_simclr.contract.philox import split_seed
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.ops._field_types import FIELD_TYPES

_WIDTHS = ViewParams((4,), (), (), (), (), (), (), (4,), (), (), ())


def draw_view_params(
    seed: int, epoch: int | tf.Tensor, index: tf.Tensor, recipe: Any, height: int, width: int
) -> ViewParams:
    """Parameters of both views of N images: a pure function of (seed, epoch, index, view) and the recipe.

    Every box lies inside the image and holds a pixel.

    Args:
        seed: the run's, in [0, 2^64).
        epoch: in [0, 2^32), a number or an integer scalar.
        index: (N,) integer places of the images in the data set, each in [0, 2^32); N may be unknown.
        recipe: a `settings.ViewRecipe`: ranges and probabilities.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        ViewParams of tensors with 2N rows: all first views, then all second views.

    Raises:
        ValueError: index is not (N,) integers, or seed is out of range.
        tf.errors.InvalidArgumentError: epoch or an index does not fit its word. (On a GPU such a row's box is all -1.)
        XlaRouteError: under jit_compile or on a GPU with a TensorFlow whose XLA cannot reach the kernel.
        NotImplementedError: on a GPU, with a library that was built without CUDA kernels.
    """
    index = tf.cast(check_index(tf.convert_to_tensor(index)), tf.int64)
    key = tf.constant(split_seed(seed).astype(np.int64))
    epoch = tf.cast(tf.convert_to_tensor(epoch), tf.int64)
    numbers = tf.constant(_pack_recipe(recipe, height, width), tf.float64)
    rows = None if index.shape[0] is None else 2 * index.shape[0]
    shapes: list[tuple[Any, ...]] = [(rows, *width) for width in _WIDTHS]
    if _route.takes_custom_call(index):
        outputs = list(zip(shapes, FIELD_TYPES))
        return ViewParams(
            *_route.call_handler("lowlevel_simclr_draw_view_params", [index, key, epoch, numbers], outputs)
        )
    drawn = _library.load_library().lowlevel_simclr_draw_view_params(index=index, key=key, epoch=epoch, recipe=numbers)
    for field, shape in zip(drawn, shapes):
        field.set_shape(shape)
    return ViewParams(*drawn)


def _pack_recipe(recipe: Any, height: int, width: int) -> np.ndarray:
    """The recipe as the kernel reads it, `ViewRecipeNumbers` of its header: (27,) float64."""
    ranges = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue, recipe.brightness_shift)
    switches = (
        recipe.flip_probability,
        recipe.jitter_probability,
        recipe.grey_probability,
        recipe.blur_probability,
    )
    central = find_central_crop(recipe.crop_aspect, height, width)
    parts = (recipe.crop_area, np.log(recipe.crop_aspect), switches, *ranges, recipe.blur_sigma)
    return np.concatenate([*parts, (recipe.clip, height, width), central]).astype(np.float64)
