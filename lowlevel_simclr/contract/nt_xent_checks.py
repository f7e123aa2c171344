"""Checks of the arguments of NT-Xent (SimCLR's loss), for the native op (own kernels) and the stock op (TensorFlow).

While a graph is built, some shapes and values are unknown. The op checks those when it runs.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TypeAlias

import tensorflow as tf

from lowlevel_simclr.contract.checks import convert_to_float

Temperature: TypeAlias = float | tf.Tensor | tf.Variable

TYPES = (tf.bfloat16, tf.float16, tf.float32, tf.float64)


def check_projections(z: tf.Tensor) -> tf.Tensor:
    """Return z as a tensor.

    Args:
        z: (2N, d) projections.

    Raises:
        TypeError: if its type is not one of `TYPES`.
        ValueError: if its static shape cannot be (2N, d) with N >= 1 and d >= 1.
    """
    z = tf.convert_to_tensor(z)
    if z.dtype not in TYPES:
        raise TypeError(f"z is {z.dtype.name}. NT-Xent needs bfloat16, float16, float32 or float64.")
    if z.shape.rank is None:
        return z
    rows, width = z.shape if z.shape.rank == 2 else (0, 0)
    if width == 0 or rows is not None and (rows == 0 or rows % 2 != 0):
        raise ValueError(
            f"z has shape {tuple(z.shape)}. NT-Xent needs (2N, d) with N >= 1 and d >= 1: "
            "all N first views, then all N second views."
        )
    return z


def check_temperature(temperature: Temperature) -> Temperature:
    """Return the temperature: a number unchanged, a tensor or variable (of TensorFlow or Keras) as a tensor.

    Args:
        temperature: tau, a number, a scalar tensor or a variable.

    Raises:
        ValueError: if it is not a scalar, or if its value is known and is not positive and finite.
    """
    if isinstance(temperature, Real):
        value = convert_to_float(temperature)
    else:
        temperature = tf.convert_to_tensor(temperature)
        if temperature.shape.rank != 0:
            raise ValueError(f"temperature has shape {temperature.shape}. It must be one number.")
        value = tf.get_static_value(temperature)  # None while a graph is being built
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"temperature is {value}. It must be a positive finite number.")
    return temperature


def check_own_pairs(z_all: tf.Tensor, first_pair: int | tf.Tensor, pairs: int | tf.Tensor) -> None:
    """Check that a batch has the pairs whose loss a replica computes.

    A pair is both views (random crops) of one image. A replica is a device that works on its part of the batch.

    Args:
        z_all: (2N, d) projections of all replicas.
        first_pair: number of the replica's first pair, from 0.
        pairs: n, number of pairs of the replica.

    Raises:
        ValueError: if the known numbers show that the pairs do not lie within 0 .. N-1.
    """
    rows, first, count = z_all.shape[0], tf.get_static_value(first_pair), tf.get_static_value(pairs)
    outside = first is not None and first < 0 or count is not None and count < 1
    if not outside and None not in (rows, first, count):
        outside = first + count > rows // 2
    if outside:
        raise ValueError(
            f"first_pair={first} and pairs={count} do not lie within the pairs of z, whose shape is "
            f"{tuple(z_all.shape)}. Use first_pair >= 0, pairs >= 1 and first_pair + pairs <= N."
        )
