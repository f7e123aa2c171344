"""One step of LARS in stock TensorFlow. It reads or writes a variable a dozen times, or fewer if XLA fuses the ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowlevel_simclr.contract.lars_checks import CHOICES, check_choice, check_variable

TYPES = (tf.float32, tf.float64)


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

    Raises:
        TypeError: if an argument has another type than these.
        ValueError: if the known shapes differ, if the rank of the weight is unknown, or if one of the last four
            arguments is not one finite number.
        tf.errors.InvalidArgumentError: if the shapes differ, but were not known while the graph was built.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import stock
        >>> choices = dict(learning_rate=0.5, momentum=0.9, weight_decay=0.0, trust_coefficient=1.0)
        >>> w, v = stock.lars_update(tf.ones([2]), tf.ones([2]), tf.zeros([2]), **choices)  # rank 1: plain momentum
        >>> w.numpy().tolist(), v.numpy().tolist()
        ([0.5, 0.5], [0.5, 0.5])
    """
    weight, gradient, velocity = _check_lengths(*check_variable(weight, gradient, velocity, TYPES))
    given = zip(CHOICES, (learning_rate, momentum, weight_decay, trust_coefficient))
    rate, momentum, weight_decay, trust_coefficient = (_check_choice(*each, weight.dtype) for each in given)
    gradient = tf.cast(gradient, weight.dtype)
    update, ratio = gradient, tf.constant(1.0, weight.dtype)
    if len(weight.shape) > 1:
        decays = tf.is_tensor(weight_decay) or weight_decay != 0
        update = gradient + weight_decay * weight if decays else gradient
        ratio = compute_trust_ratio(weight, update, trust_coefficient)
    velocity = momentum * velocity + tf.cast(rate, weight.dtype) * ratio * update
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
        ValueError: if the numbers of weights, gradients and velocities differ, and as in `lars_update`.
        TypeError, tf.errors.InvalidArgumentError: see `lars_update`.

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


def _check_choice(name: str, value: Any, dtype: tf.DType) -> float | tf.Tensor:
    """Return a number as it is, and a scalar tensor in the type of the weight."""
    value = check_choice(name, value)
    return tf.cast(value, dtype) if tf.is_tensor(value) else value


def _check_lengths(weight: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return the tensors. If a shape is unknown while the graph is built, the graph asserts that all shapes are equal.

    Otherwise TensorFlow would broadcast one tensor to the shape of another.
    """
    tensors = (weight, *others)
    if all(tensor.shape.is_fully_defined() for tensor in tensors):
        return tensors
    message = "weight, gradient and velocity must have the same shape. Pass all three for the same variable."
    same = [tf.debugging.assert_equal(tf.shape(weight), tf.shape(other), message) for other in others]
    with tf.control_dependencies(same):
        return tuple(tf.identity(tensor) for tensor in tensors)


def compute_trust_ratio(weight: tf.Tensor, update: tf.Tensor, coefficient: float) -> tf.Tensor:
    """Return the trust ratio coefficient |w| / |u|, or 1 if either norm is 0: a scalar of their type."""
    numerator, denominator = tf.norm(weight), tf.norm(update)
    usable = (numerator != 0) & (denominator != 0)  # NaN is not 0, so a NaN norm reaches every element
    return tf.where(usable, coefficient * numerator / tf.where(usable, denominator, 1.0), 1.0)
