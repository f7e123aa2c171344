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
    choices = (learning_rate, momentum, weight_decay, trust_coefficient)
    new_weights, new_velocities = _update([weight], [gradient], [velocity], choices)
    return new_weights[0], new_velocities[0]


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
    return _update(weights, gradients, velocities, (learning_rate, momentum, weight_decay, trust_coefficient))


def _update(
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    velocities: Sequence[tf.Tensor],
    choices: Sequence[float | tf.Tensor],
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The next weights and velocities: an op for each variable, or one custom call for all."""
    variables = [tuple(map(tf.convert_to_tensor, each)) for each in zip(weights, gradients, velocities)]
    scalars = [tf.cast(value, tf.float32) for value in choices]
    if variables and _route.takes_custom_call(variables[0][0]):
        found = _update_by_custom_call(variables, scalars)
    else:
        found = [_library.load_library().lowlevel_simclr_lars_update(*each, *scalars) for each in variables]
    return [new_weight for new_weight, _ in found], [new_velocity for _, new_velocity in found]


def _update_by_custom_call(
    variables: Sequence[tuple[tf.Tensor, ...]], scalars: Sequence[tf.Tensor]
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """New weight and new velocity of each, in the memory of weight and velocity where nobody else reads those."""
    inputs, in_place = [tf.stack(scalars)], []
    outputs: list[_route.Spec] = []
    for weight, gradient, velocity in variables:
        _check_shapes(weight, gradient, velocity)
        in_place += [(len(outputs), len(inputs)), (len(outputs) + 1, len(inputs) + 2)]
        outputs += [(weight.shape, tf.float32)] * 2
        inputs += [weight, tf.cast(gradient, tf.float32), velocity]  # XLA casts where the gradient is made
    found = _route.call_handler("lowlevel_simclr_lars_update", inputs, outputs, in_place)
    return list(zip(found[::2], found[1::2]))


def _check_shapes(weight: tf.Tensor, gradient: tf.Tensor, velocity: tf.Tensor) -> None:
    """Here, for StableHLO refuses a result in the memory of another shape in words of its own."""
    if not (weight.shape.is_compatible_with(gradient.shape) and weight.shape.is_compatible_with(velocity.shape)):
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"weight, gradient and velocity must have one shape, and are {weight.shape}, {gradient.shape} and "
            f"{velocity.shape}: give all three for the same variable.",
        )
