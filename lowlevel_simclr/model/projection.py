"""The projection head g: h -> z, where the contrastive loss is applied (SimCLR, section 2.1)."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.config.choices import HEAD_BATCH_NORMS
from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.initial_values import derive_layer_seed

FIRST_PLACE = 10_001  # of the layers' seeds, behind all of the encoder's
MOMENTUM, EPSILON = 0.9, 1.001e-5  # of BatchNorm, as in the encoder


def build_projection_head(
    dim: int, widths: tuple[int, ...] = (256, 128), seed: int = 0, batch_norm: str = "none"
) -> tf.keras.Model:
    """Dense layers with ReLU between them and none behind the last.

    Args:
        dim: of h.
        widths: of the layers; the last is the dimension of z.
        batch_norm: behind which layers, before the ReLU: none, the hidden ones, all; or google, all of them and the
            last without a shift. A layer with BatchNorm has no bias.
        seed: the weights are a function of it, whatever was built before.

    Returns:
        A model h (B, dim) -> z (B, widths[-1]), in the precision that is set; its variables are float32.

    Raises:
        ValueError: there is no layer, or one without width; there is no such BatchNorm.
    """
    if batch_norm not in HEAD_BATCH_NORMS:
        raise ValueError(f"there is no BatchNorm '{batch_norm}' of the head: give one of {', '.join(HEAD_BATCH_NORMS)}")
    if not widths or min(widths) < 1:
        raise ValueError(f"the projection widths are {tuple(widths)}: give at least one, each at least 1")
    precision = tf.keras.mixed_precision.global_policy().compute_dtype
    h = x = tf.keras.Input((dim,), dtype=precision, name="h")
    for place, width in enumerate(widths):
        initializer = tf.keras.initializers.GlorotUniform(derive_layer_seed(seed, FIRST_PLACE + place))
        last = place + 1 == len(widths)
        normalised = batch_norm in ("all", "google") or (batch_norm == "hidden" and not last)
        x = tf.keras.layers.Dense(
            width, use_bias=not normalised, kernel_initializer=initializer, name=f"dense{place + 1}"
        )(x)
        if normalised:
            x = _add_batch_norm(x, width, shift=not (last and batch_norm == "google"), name=f"bn{place + 1}")
        if not last:
            x = tf.keras.layers.ReLU(name=f"relu{place + 1}")(x)
    return tf.keras.Model(h, x, name="projection")


def _add_batch_norm(x: tf.Tensor, width: int, shift: bool, name: str) -> tf.Tensor:
    """The encoder's BatchNorm on rows (B, width), which it takes for images of one pixel."""
    x = tf.keras.layers.Reshape((1, 1, width), name=f"{name}_pixel")(x)
    x = FusedBatchNorm(momentum=MOMENTUM, epsilon=EPSILON, center=shift, name=name)(x)
    return tf.keras.layers.Reshape((width,), name=f"{name}_row")(x)
