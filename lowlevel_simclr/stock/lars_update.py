"""One step of LARS in stock TensorFlow. It makes a dozen passes over a variable, fewer if XLA fuses them."""

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
    """Return weight and velocity of one variable after one step of LARS.

    A variable of rank 0 or 1 has no weight decay and no trust ratio.

    Args:
        weight: w, float32 or float64, of any shape.
        gradient: g, of the same shape, and of the same type or bfloat16.
        velocity: v, of the same shape and type.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weight and the next velocity.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> choices = dict(learning_rate=0.5, momentum=0.9, weight_decay=0.0, trust_coefficient=1.0)
        >>> w, v = stock.lars_update(tf.ones([2]), tf.ones([2]), tf.zeros([2]), **choices)  # rank 1: plain momentum
        >>> w.numpy().tolist(), v.numpy().tolist()
        ([0.5, 0.5], [0.5, 0.5])
    """
    gradient = tf.cast(gradient, weight.dtype)
    update, ratio = gradient, tf.constant(1.0, weight.dtype)
    if len(weight.shape) > 1:
        update = gradient + weight_decay * weight if weight_decay else gradient
        ratio = compute_trust_ratio(weight, update, trust_coefficient)
    velocity = momentum * velocity + tf.cast(learning_rate, weight.dtype) * ratio * update
    return weight - velocity, velocity


def lars_update_all(
    weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor], velocities: Sequence[tf.Tensor], **choices: Any
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Return weights and velocities of many variables after one step of LARS.

    Args:
        weights: w of each variable.
        gradients: g of each variable.
        velocities: v of each variable.
        **choices: keyword arguments of `lars_update`.

    Returns:
        The next weights and the next velocities.

    Raises:
        ValueError: if the numbers of weights, gradients and velocities differ.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> choices = dict(learning_rate=0.5, momentum=0.9, weight_decay=0.0, trust_coefficient=1.0)
        >>> weights, gradients = [tf.ones([2, 3]), tf.ones([3])], [tf.ones([2, 3]), tf.ones([3])]
        >>> velocities = [tf.zeros([2, 3]), tf.zeros([3])]
        >>> new_weights, new_velocities = stock.lars_update_all(weights, gradients, velocities, **choices)
        >>> [weight.shape.as_list() for weight in new_weights]
        [[2, 3], [3]]
    """
    moved = [lars_update(*each, **choices) for each in zip(weights, gradients, velocities, strict=True)]
    return [weight for weight, _ in moved], [velocity for _, velocity in moved]


def compute_trust_ratio(weight: tf.Tensor, update: tf.Tensor, coefficient: float) -> tf.Tensor:
    """Return the trust ratio coefficient |w| / |u|, or 1 if either norm is 0: a scalar of their type."""
    numerator, denominator = tf.norm(weight), tf.norm(update)
    usable = (numerator != 0) & (denominator != 0)  # NaN is not 0, so a NaN norm reaches every element
    return tf.where(usable, coefficient * numerator / tf.where(usable, denominator, 1.0), 1.0)
