"""Makes two views of every image. A view is a random crop, perhaps flipped, with changed colours.

First the random parameters are drawn from (seed, epoch, image index, view). Then the pixels are computed. Both steps
are ops of the implementation that the caller chooses: `stock` (plain TensorFlow) or `ops` (native).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling

Views = Callable[..., tf.Tensor]  # (epoch, index, images) or (epoch, index, images, sizes) -> (2N, S, S, C)


class ViewOps(Protocol):
    """The ops that views need. `ops` and `stock` both provide them."""

    @property
    def draw_view_params(self) -> Callable[..., Any]:
        """The op (seed, epoch, index, recipe, height, width, sizes) -> ViewParams of 2N rows."""

    @property
    def make_views(self) -> Callable[..., tf.Tensor]:
        """The op (images, params, size, dtype, mean, std) -> views (2N, S, S, C)."""


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
    sizes: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return both views of every image (SimCLR, appendix A).

    Rows 0 to N-1 are the first views, and rows N to 2N-1 are the second views of the same images.

    Args:
        images: (N, H, W, C) uint8.
        epoch: scalar integer. The random parameters depend only on the seed, the epoch and the index, so a resumed run
            makes the same views.
        index: (N,) int64, positions of the images in the data set.
        seed: seed of the run, in [0, 2^64).
        recipe: the ranges and probabilities of the views.
        size: S, pixels a side of a view.
        dtype: dtype of the views.
        implementation: the ops to use.
        scaling: scaling of the pixels, applied last.
        sizes: (N, 2) integers, the height and width of each image, if the images lie in the upper left corners of
            padded arrays. No view shows the padding. None: there is no padding.

    Returns:
        (2N, S, S, C) of `dtype`.
    """
    height, width = images.shape[1], images.shape[2]
    params = implementation.draw_view_params(seed, epoch, index, recipe, height, width, sizes)
    return implementation.make_views(images, params, size, dtype, *scaling, blur=recipe.blur_probability > 0)


def compile_views(
    *,
    seed: int,
    recipe: ViewRecipe,
    size: int,
    dtype: tf.DType,
    implementation: ViewOps = stock,
    scaling: PixelScaling = UNSCALED,
    jit_compile: bool = False,
) -> Views:
    """Return a compiled function from (epoch, index, images) to both views of every image.

    The returned function has a fourth argument `sizes`, which is needed only if the images have padding.

    With `jit_compile`, XLA compiles the function. The other arguments are those of `make_two_views`.
    """

    def make(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor, sizes: tf.Tensor | None = None) -> tf.Tensor:
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
            sizes=sizes,
        )

    # The function does not need autograph, which would take half of the time of tracing the training step.
    return tf.function(make, jit_compile=jit_compile, autograph=False)
