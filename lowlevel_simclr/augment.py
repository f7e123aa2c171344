"""x -> two views: draws the parameters of every view from (seed, epoch, image index, view) and makes the pixels.

Not here: pixel arithmetic and random numbers, which are the implementation's (`stock` or `ops`).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowlevel_simclr.config import ViewRecipe


def two_views(
    images: tf.Tensor,
    epoch: tf.Tensor,
    index: tf.Tensor,
    *,
    seed: int,
    recipe: ViewRecipe,
    size: int,
    dtype: tf.DType,
    implementation: Any,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> tf.Tensor:
    """Both views of every image (SimCLR, appendix A): rows 0..N-1 are the first views, N..2N-1 the second.

    Args:
        images: (N, H, W, C) uint8.
        epoch: scalar integer; with `index` it decides what is drawn, so a resumed run draws the same views.
        index: (N,) int64, the images' places in the data set.
        seed: the run's seed.
        recipe: the ranges and probabilities of the views.
        size: S, pixels a side of a view.
        dtype: of the views.
        implementation: has `draw_view_params` and `make_views` with the signatures of `stock`.
        mean: per channel, taken from pixels in [0, 1]; None for 0.
        std: per channel, what they are divided by after that; None for 1.

    Returns:
        (2N, S, S, C) of `dtype`.
    """
    height, width = images.shape[1], images.shape[2]
    params = implementation.draw_view_params(seed, epoch, index, recipe, height, width)
    return implementation.make_views(images, params, size, dtype, mean, std, blur=recipe.blur_probability > 0)
