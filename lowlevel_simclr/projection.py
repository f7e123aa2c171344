"""The projection head g: h -> z, where the contrastive loss is applied (SimCLR, section 2.1)."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.compat import layer_seed

FIRST_PLACE = 10_001  # of the layers' seeds, behind all of the encoder's


def build(dim: int, widths: tuple[int, ...] = (256, 128), seed: int = 0) -> tf.keras.Model:
    """Dense layers with ReLU between them and none behind the last.

    Args:
        dim: of h.
        widths: of the layers; the last is the dimension of z.
        seed: the weights are a function of it, whatever was built before.

    Returns:
        A model h (B, dim) -> z (B, widths[-1]), in the precision that is set; its variables are float32.

    Raises:
        ValueError: there is no layer, or one without width.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"the projection widths are {tuple(widths)}: give at least one, each at least 1")
    precision = tf.keras.mixed_precision.global_policy().compute_dtype
    h = x = tf.keras.Input((dim,), dtype=precision, name="h")
    for place, width in enumerate(widths):
        initializer = tf.keras.initializers.GlorotUniform(layer_seed(seed, FIRST_PLACE + place))
        x = tf.keras.layers.Dense(width, kernel_initializer=initializer, name=f"dense{place + 1}")(x)
        if place + 1 < len(widths):
            x = tf.keras.layers.ReLU(name=f"relu{place + 1}")(x)
    return tf.keras.Model(h, x, name="projection")
