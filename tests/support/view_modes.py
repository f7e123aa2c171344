"""Three ways to call a function that augments images: eagerly, in a graph, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from lowlevel_simclr.contract.view_params import ViewParams
from tests.support.view_inputs import all_orders

Make = Callable[[tf.Tensor, ViewParams], tf.Tensor]  # images (N, H, W, 3), params -> views (2N, S, S, 3)


def build_modes(make: Make, height: int, width: int, size: int) -> dict[str, Make]:
    """Return `make` in three modes: eager, in a graph that does not know the number of images N, and under XLA.

    In the graph and under XLA, the functions also assert that TensorFlow knows every dimension that it can know.

    Args:
        make: a function that makes views of `size` pixels from uint8 images (N, height, width, 3).
        height: H of the images.
        width: W of the images.
        size: S, the number of pixels on a side of a view.
    """

    def trace(images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        views = make(images, params)
        assert views.shape == (None if images.shape[0] is None else 2 * images.shape[0], size, size, 3)
        return views

    unknown = ViewParams(*(tf.TensorSpec([None, *field.shape[1:]], field.dtype) for field in all_orders(9, 9)))
    signature = [tf.TensorSpec([None, height, width, 3], tf.uint8), unknown]
    return {
        "eager": make,
        "graph": tf.function(trace, input_signature=signature),
        "xla": tf.function(trace, jit_compile=True),
    }
