"""One step of LARS in two passes over a variable. kernels/lars_update/lars_update.h has the formula.

Not for what XLA compiles, which fuses the stock form by itself, and not on a GPU: whoever builds the optimizer chooses
`stock.lars_update` there.
"""

from __future__ import annotations

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
        gradient: g, float32, of the same shape. Its memory becomes the next weight's where nobody else reads it.
        velocity: v, float32, of the same shape.
        learning_rate: lr, a number or a scalar tensor.
        momentum: m.
        weight_decay: beta.
        trust_coefficient: eta.

    Returns:
        The next weight and the next velocity, new tensors: the arguments are not changed.

    Raises:
        NotImplementedError: XLA compiles the caller, or the machine has a GPU, on which the weights may live.
        tf.errors.InvalidArgumentError: the shapes differ.
    """
    if _route.inside_xla() or tf.config.list_physical_devices("GPU") and "CPU" not in str(weight.device):
        raise NotImplementedError(
            "The native LARS runs on the CPU and outside XLA: use stock.lars_update here, or put the update under "
            "tf.device('/CPU:0')."
        )
    scalars = [tf.cast(value, tf.float32) for value in (learning_rate, momentum, weight_decay, trust_coefficient)]
    found = _library.library().lowlevel_simclr_lars_update(weight, gradient, velocity, *scalars)
    return found[0], found[1]
