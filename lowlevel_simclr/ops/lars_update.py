"""One step of the optimizer LARS, for one variable or for many, in two passes over memory.

The formula is in kernels/lars_update/lars_update.h, with the same symbols (w, g, v, lr, m, beta, eta) as here. Under
`jit_compile=True` and on a GPU the kernels run through XLA (see `_route`).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from lowlevel_simclr.contract.lars_checks import CHOICES, check_choice, check_variable
from lowlevel_simclr.ops import _library, _route

TYPES = (tf.float32,)


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

    The trust ratio is the factor by which LARS scales the update of a variable. A variable of rank 0 or 1 has no weight
    decay and no trust ratio.

    Args:
        weight: w, float32, of any shape.
        gradient: g, float32 or bfloat16, of the same shape. A bfloat16 gradient gives the same bits as its cast to
            float32. In a graph on the CPU, the returned weight takes over the memory of a float32 gradient, if nothing
            else reads that gradient.
        velocity: v, float32, of the same shape.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weight and the next velocity. They are new tensors. The arguments keep their values.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if the known shapes differ, or if one of the last four arguments is not one finite number. Under
            jit_compile or on a GPU, it is also raised if a shape is not known while tracing.
        tf.errors.InvalidArgumentError: if the shapes differ, but were not known while the graph was built.
        XlaRouteError: under jit_compile or on a GPU, if XLA cannot call the kernels in this TensorFlow.
        NotImplementedError: on a GPU, if the library was built without CUDA kernels.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> choices = dict(learning_rate=0.5, momentum=0.9, weight_decay=0.0, trust_coefficient=1.0)
        >>> w, v = ops.lars_update(tf.ones([2]), tf.ones([2]), tf.zeros([2]), **choices)  # rank 1: plain momentum
        >>> w.numpy().tolist(), v.numpy().tolist()
        ([0.5, 0.5], [0.5, 0.5])
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
    """Return weights and velocities of many variables after one step of LARS.

    Each variable gets the same bits as from `lars_update`. On a GPU, a few kernel launches update all variables.

    Args:
        weights: w of each variable, as in `lars_update`.
        gradients: g of each variable.
        velocities: v of each variable.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weights and the next velocities.

    Raises:
        ValueError: if the numbers of weights, gradients and velocities differ, and as in `lars_update`.
        TypeError, tf.errors.InvalidArgumentError: see `lars_update`.
        XlaRouteError: see `lars_update`.
        NotImplementedError: see `lars_update`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr import ops
        >>> choices = dict(learning_rate=0.5, momentum=0.9, weight_decay=0.0, trust_coefficient=1.0)
        >>> weights, gradients = [tf.ones([2, 3]), tf.ones([3])], [tf.ones([2, 3]), tf.ones([3])]
        >>> velocities = [tf.zeros([2, 3]), tf.zeros([3])]
        >>> new_weights, new_velocities = ops.lars_update_all(weights, gradients, velocities, **choices)
        >>> [weight.shape.as_list() for weight in new_weights]
        [[2, 3], [3]]
    """
    if not len(weights) == len(gradients) == len(velocities):
        raise ValueError(
            f"There are {len(weights)} weights, {len(gradients)} gradients and {len(velocities)} velocities. "
            "Pass one of each for every variable."
        )
    return _update(weights, gradients, velocities, (learning_rate, momentum, weight_decay, trust_coefficient))


def _update(
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    velocities: Sequence[tf.Tensor],
    choices: Sequence[float | tf.Tensor],
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Return the next weights and velocities, from one op per variable or from one custom call for all variables."""
    variables = [check_variable(*each, types=TYPES) for each in zip(weights, gradients, velocities)]
    scalars = [tf.cast(check_choice(*each), tf.float32) for each in zip(CHOICES, choices)]
    if variables and _route.takes_custom_call(variables[0][0]):
        found = _update_by_custom_call(variables, scalars)
    else:
        found = [_library.load_library().lowlevel_simclr_lars_update(*each, *scalars) for each in variables]
    return [new_weight for new_weight, _ in found], [new_velocity for _, new_velocity in found]


def _update_by_custom_call(
    variables: Sequence[tuple[tf.Tensor, ...]], scalars: Sequence[tf.Tensor]
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return the next weight and velocity of each variable from one custom call.

    The results take over the memory of the weight and the velocity, if no other operation reads the old values.
    """
    inputs, in_place = [tf.stack(scalars)], []
    outputs: list[_route.Spec] = []
    for weight, gradient, velocity in variables:
        in_place += [(len(outputs), len(inputs)), (len(outputs) + 1, len(inputs) + 2)]
        outputs += [(weight.shape, tf.float32)] * 2
        inputs += [weight, tf.cast(gradient, tf.float32), velocity]  # XLA fuses this cast
    found = _route.call_handler("lowlevel_simclr_lars_update", inputs, outputs, in_place)
    return list(zip(found[::2], found[1::2]))
