"""The projection head g, from the representation h to the projection z (SimCLR, section 2.1)."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.config.choices import HEAD_BATCH_NORMS
from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.initial_values import derive_layer_seed

# Each layer's seed is derived from the layer's number. The layers of the head are numbered from here on. All layers of
# the encoder have smaller numbers, so no two layers have the same seed.
FIRST_PLACE = 10_001
MOMENTUM, EPSILON = 0.9, 1.001e-5  # the encoder's BatchNorm has the same values


def build_projection_head(
    dim: int, widths: tuple[int, ...] = (256, 128), seed: int = 0, batch_norm: str = "none"
) -> tf.keras.Model:
    """Build the projection head g: dense layers with a ReLU after each layer but the last.

    Args:
        dim: number of entries of the representation h.
        widths: width of each layer. The last width is the dimension of the projection z.
        batch_norm: which layers have BatchNorm, before the ReLU: "none", "hidden" (every layer except the last),
            "all", or "google" (every layer; the BatchNorm of the last layer has no shift beta). A dense layer with
            BatchNorm has no bias.
        seed: seed of the weights. They depend only on the seed, not on what was built before.

    Returns:
        A model h (B, dim) -> z (B, widths[-1]). It computes in the type of Keras's global dtype policy. Its variables
        are float32.

    Raises:
        ValueError: if there are no layers, if a width is below 1, or if there is no such `batch_norm`.

    Examples:
        >>> from lowlevel_simclr.model.projection import build_projection_head
        >>> g = build_projection_head(dim=64, widths=(256, 128), seed=0)
        >>> g.output_shape
        (None, 128)
    """
    if batch_norm not in HEAD_BATCH_NORMS:
        raise ValueError(
            f"There is no BatchNorm '{batch_norm}' of the projection head. Use one of {', '.join(HEAD_BATCH_NORMS)}."
        )
    if not widths or min(widths) < 1:
        raise ValueError(f"The projection widths are {tuple(widths)}. Give at least one width, each at least 1.")
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
    """Add BatchNorm on rows (B, width). It is the encoder's kind of layer, and each row is an image of one pixel."""
    x = tf.keras.layers.Reshape((1, 1, width), name=f"{name}_pixel")(x)
    x = FusedBatchNorm(momentum=MOMENTUM, epsilon=EPSILON, center=shift, name=name)(x)
    return tf.keras.layers.Reshape((width,), name=f"{name}_row")(x)
