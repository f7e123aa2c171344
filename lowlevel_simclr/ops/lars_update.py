"""One step of LARS in two passes over a variable, or over many. kernels/lars_update/lars_update.h has the formula.

Inside `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lowlevel_simclr.ops import _library, _route


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
        weight: w, float32, of any shape.
        gradient: g, float32 or bfloat16, of the same shape; bfloat16 gives the bits that it gives widened to float32.
            In graphs on the CPU the memory of float32 becomes the next weight's where nobody else reads it.
        velocity: v, float32, of the same shape.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weight and the next velocity, new tensors: the arguments are not changed.

    Raises:
        tf.errors.InvalidArgumentError: the shapes differ.
        ValueError: under jit_compile or on a GPU, a shape is not known while tracing.
        XlaRouteError: under jit_compile or on a GPU with a TensorFlow whose XLA cannot reach the kernels.
        NotImplementedError: on a GPU, with a library that was built without CUDA kernels.
    """
    weight, gradient, velocity = (tf.convert_to_tensor(each) for each in (weight, gradient, velocity))
    scalars = _scalars(learning_rate, momentum, weight_decay, trust_coefficient)
    if _route.by_custom_call(weight):
        gradient = tf.cast(gradient, tf.float32)  # XLA makes it part of what gives the gradient
        inputs, outputs = [weight, gradient, velocity, tf.stack(scalars)], [(weight.shape, tf.float32)] * 2
        found = _route.custom_call("lowlevel_simclr_lars_update", inputs, outputs)
    else:
        found = _library.library().lowlevel_simclr_lars_update(weight, gradient, velocity, *scalars)
    return found[0], found[1]


def lars_update_all(
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    velocities: Sequence[tf.Tensor],
    *,
    learning_rate: float | tf.Tensor,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """One step of LARS for many variables, each to the bits that `lars_update` gives; on a GPU in a few launches.

    Args:
        weights: w of each variable, as `lars_update` takes it.
        gradients: g of each.
        velocities: v of each.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weights and the next velocities.

    Raises:
        ValueError: there are not as many weights as gradients and velocities; or as `lars_update`.
        tf.errors.InvalidArgumentError, XlaRouteError, NotImplementedError: as `lars_update`.
    """
    if not len(weights) == len(gradients) == len(velocities):
        raise ValueError(
            f"there are {len(weights)} weights, {len(gradients)} gradients and {len(velocities)} velocities: "
            "give one of each for every variable."
        )
    choices = (learning_rate, momentum, weight_decay, trust_coefficient)
    if not weights:
        return [], []
    if not _route.by_custom_call(tf.convert_to_tensor(weights[0])):
        keywords = dict(zip(("learning_rate", "momentum", "weight_decay", "trust_coefficient"), choices))
        moved = [lars_update(*each, **keywords) for each in zip(weights, gradients, velocities)]
        return [weight for weight, _ in moved], [velocity for _, velocity in moved]
    inputs = [tf.stack(_scalars(*choices))]
    for weight, gradient, velocity in zip(weights, gradients, velocities):
        inputs += [tf.convert_to_tensor(weight), tf.cast(gradient, tf.float32), tf.convert_to_tensor(velocity)]
    _refuse_shapes_that_differ(inputs[1:])
    outputs = [(tensor.shape, tf.float32) for weight in inputs[1::3] for tensor in (weight, weight)]
    in_place = [(2 * i + j, 1 + 3 * i + 2 * j) for i in range(len(weights)) for j in range(2)]
    found = _route.custom_call("lowlevel_simclr_lars_update_all", inputs, outputs, in_place)
    return found[::2], found[1::2]


def _refuse_shapes_that_differ(tensors: Sequence[tf.Tensor]) -> None:
    """Here, for StableHLO refuses results in the memory of other shapes in words of its own."""
    for weight, gradient, velocity in zip(tensors[::3], tensors[1::3], tensors[2::3]):
        for other in (gradient, velocity):
            if not weight.shape.is_compatible_with(other.shape):
                shapes = f"{weight.shape}, {gradient.shape} and {velocity.shape}"
                sentence = f"weight, gradient and velocity must have one shape, and one variable's have {shapes}."
                raise tf.errors.InvalidArgumentError(None, None, sentence)


def _scalars(*values: float | tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(value, tf.float32) for value in values]
