"""Checks of the arguments of LARS (an optimizer), for the native op (own kernels) and the stock op (plain TensorFlow).

Shapes and types are checked wherever they are known. The value of a tensor is never read, because that would wait for
the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import tensorflow as tf

from lowlevel_simclr.contract.checks import check_number, check_same_shape, describe_value

CHOICES = ("learning_rate", "momentum", "weight_decay", "trust_coefficient")


def check_variable(
    weight: Any, gradient: Any, velocity: Any, types: Sequence[tf.DType]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the weight, the gradient and the velocity (momentum) of a variable as tensors.

    Args:
        weight: w, of any shape.
        gradient: g, of the same shape.
        velocity: v, of the same shape.
        types: the types that the implementation takes for weight and velocity.

    Raises:
        TypeError: if the types do not fit together, or if the implementation does not take them.
        ValueError: if an argument is not an array of numbers, or if the known shapes differ.
    """
    weight, gradient, velocity = (tf.convert_to_tensor(each) for each in (weight, gradient, velocity))
    if weight.dtype not in types or velocity.dtype != weight.dtype or gradient.dtype not in (weight.dtype, tf.bfloat16):
        stock = " The stock op (--ops stock) takes float64 too." if tf.float64 not in types else ""
        raise TypeError(
            f"weight, gradient and velocity are {weight.dtype.name}, {gradient.dtype.name} and {velocity.dtype.name}. "
            f"All must be {' or all '.join(kind.name for kind in types)}, except that the gradient may be "
            f"bfloat16.{stock}"
        )
    shapes = [each.shape for each in (weight, gradient, velocity) if each.shape.rank is not None]
    if len(shapes) == 3:
        check_same_shape([tuple(shape) for shape in shapes])
    return weight, gradient, velocity


def check_choice(name: str, value: Any) -> float | tf.Tensor:
    """Return one of the four settings of an update: a Python number as a float, a tensor as a scalar tensor.

    Args:
        name: one of `CHOICES`.
        value: a number, a scalar tensor, or a variable of TensorFlow or Keras.

    Raises:
        TypeError: if it is not of a floating-point or integer type.
        ValueError: if it is not one number. A Python number must also be finite and fit into float32.
    """
    if isinstance(value, Real):
        return check_number(name, value)
    tensor = tf.convert_to_tensor(value)
    if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
        raise TypeError(f"{name} is {describe_value(value)}. It must be one number.")
    if tensor.shape.rank not in (None, 0):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}. {name} must be one number.")
    return tensor
