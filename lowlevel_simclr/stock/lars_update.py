"""One step of LARS in stock TensorFlow: a dozen passes over a variable, or what XLA fuses them to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def lars_update(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    velocity: tf.Tensor,
    *,
    learning_rate: float | tf.Tensor,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of LARS for one variable; of rank 0 or 1 it neither decays nor has a trust ratio.

    Args:
        weight: w, float32 or float64, of any shape.
        gradient: g, of the same type, or bfloat16, and shape.
        velocity: v, of the same type and shape.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weight and the next velocity.
    """
    gradient = tf.cast(gradient, weight.dtype)
    update, ratio = gradient, tf.constant(1.0, weight.dtype)
    if len(weight.shape) > 1:
        update = gradient + weight_decay * weight if weight_decay else gradient
        ratio = trust_ratio(weight, update, trust_coefficient)
    velocity = momentum * velocity + tf.cast(learning_rate, weight.dtype) * ratio * update
    return weight - velocity, velocity


def lars_update_all(
    weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor], velocities: Sequence[tf.Tensor], **choices: Any
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """`lars_update` of each variable, with its keywords: the next weights and the next velocities.

    Raises:
        ValueError: there are not as many weights as gradients and velocities.
    """
    moved = [lars_update(*each, **choices) for each in zip(weights, gradients, velocities, strict=True)]
    return [weight for weight, _ in moved], [velocity for _, velocity in moved]


def trust_ratio(weight: tf.Tensor, update: tf.Tensor, coefficient: float) -> tf.Tensor:
    """coefficient |w| / |u|, or 1 where either is 0: a scalar of their type."""
    numerator, denominator = tf.norm(weight), tf.norm(update)
    usable = (numerator != 0) & (denominator != 0)  # a norm that is no number is not 0: it goes into every element
    return tf.where(usable, coefficient * numerator / tf.where(usable, denominator, 1.0), 1.0)
