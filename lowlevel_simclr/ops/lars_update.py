"""One step of LARS in two passes over a variable. kernels/lars_update/lars_update.h has the formula.

Inside `jit_compile=True` and on a GPU the kernels run through XLA (see `_route`).
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
    scalars = [tf.cast(value, tf.float32) for value in (learning_rate, momentum, weight_decay, trust_coefficient)]
    if _route.by_custom_call(weight):
        gradient = tf.cast(gradient, tf.float32)  # XLA makes it part of what gives the gradient
        inputs, outputs = [weight, gradient, velocity, tf.stack(scalars)], [(weight.shape, tf.float32)] * 2
        found = _route.custom_call("lowlevel_simclr_lars_update", inputs, outputs)
    else:
        found = _library.library().lowlevel_simclr_lars_update(weight, gradient, velocity, *scalars)
    return found[0], found[1]
