"""Calls the C++ op for SimCLR's loss (NT-Xent) on random rows, also for tests that start a separate process."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lowlevel_simclr import ops


def rows(pairs: int, dim: int, dtype: str = "float32", seed: int = 0) -> tf.Tensor:
    """Return random z (2 pairs, dim)."""
    return tf.cast(tf.constant(np.random.default_rng(seed).normal(size=(2 * pairs, dim))), dtype)


def loss_and_gradient(z: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the losses of z (2N, d) and the gradient of their sum."""
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = ops.nt_xent(z, temperature)
    return loss, tape.gradient(loss, z)
