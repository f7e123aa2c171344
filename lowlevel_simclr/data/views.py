"""Two views of every image: their parameters are drawn from (seed, epoch, image index, view), then the pixels made.

Not here: pixel arithmetic and random numbers. They belong to the implementation (`stock` or `ops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling

Views = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]  # (epoch, index, images) -> (2N, S, S, C)


class ViewOps(Protocol):
    """The ops that views need, as `ops` and `stock` have them."""

    @property
    def draw_view_params(self) -> Callable[..., Any]:
        """(seed, epoch, index, recipe, height, width) -> ViewParams of 2N rows."""

    @property
    def make_views(self) -> Callable[..., tf.Tensor]:
        """(images, params, size, dtype, mean, std) -> (2N, S, S, C)."""


def make_two_views(
    images: tf.Tensor,
    epoch: tf.Tensor,
    index: tf.Tensor,
    *,
    seed: int,
    recipe: ViewRecipe,
    size: int,
    dtype: tf.DType,
    implementation: ViewOps,
    scaling: PixelScaling = UNSCALED,
) -> tf.Tensor:
    """Return both views of every image (SimCLR, appendix A): rows 0..N-1 are the first views, N..2N-1 the second.

    Args:
        images: (N, H, W, C) uint8.
        epoch: scalar integer; with `index` it decides what is drawn, so a resumed run draws the same views.
        index: (N,) int64, the images' places in the data set.
        seed: the run's seed.
        recipe: the ranges and probabilities of the views.
        size: S, pixels a side of a view.
        dtype: of the views.
        implementation: whose ops.
        scaling: of the pixels, at the end.

    Returns:
        (2N, S, S, C) of `dtype`.
    """
    height, width = images.shape[1], images.shape[2]
    params = implementation.draw_view_params(seed, epoch, index, recipe, height, width)
    return implementation.make_views(images, params, size, dtype, *scaling, blur=recipe.blur_probability > 0)


def compile_views(
    *,
    seed: int,
    recipe: ViewRecipe,
    size: int,
    dtype: tf.DType,
    implementation: ViewOps,
    scaling: PixelScaling = UNSCALED,
    jit_compile: bool = False,
) -> Views:
    """Return a compiled function (epoch, index, images) -> both views of every image, see `make_two_views`."""

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        return make_two_views(
            images,
            epoch,
            index,
            seed=seed,
            recipe=recipe,
            size=size,
            dtype=dtype,
            implementation=implementation,
            scaling=scaling,
        )

    # Autograph, which nothing here needs, would take half of the step's tracing time.
    return tf.function(views, jit_compile=jit_compile, autograph=False)
