"""Tests this package's BatchNorm layer, which uses one fused kernel of TensorFlow.

It must give the outputs, gradients and moving statistics of Keras's layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.runtime import keras

EPS = float(np.finfo(np.float32).eps)


def batch_norm_in_float64(x: Any, gamma: Any, beta: Any, epsilon: float, cotangent: Any) -> dict[str, np.ndarray]:
    """Return the output y, and the gradients of the sum of cotangent * y (Ioffe and Szegedy 2015, section 3)."""
    x, axes = x.astype(np.float64), (0, 1, 2)
    root = 1 / np.sqrt(x.var(axes) + epsilon)
    unit = (x - x.mean(axes)) * root
    plain, along = cotangent.mean(axes), (cotangent * unit).mean(axes)
    return {
        "y": gamma * unit + beta,
        "dx": gamma * root * (cotangent - plain - unit * along),
        "dgamma": (cotangent * unit).sum(axes),
        "dbeta": cotangent.sum(axes),
    }


def batch_norm_of(layer: Any, x: np.ndarray, gamma: Any, beta: Any, cotangent: np.ndarray) -> dict[str, np.ndarray]:
    layer.build(x.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    view = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(view)
        y = layer(view, training=True)
        total = tf.reduce_sum(y * cotangent)
    dx, dgamma, dbeta = tape.gradient(total, [view, *layer.trainable_variables])
    return {"y": y.numpy(), "dx": dx.numpy(), "dgamma": dgamma.numpy(), "dbeta": dbeta.numpy()}


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x (2, 3, 3, 5) with a mean that is not 0, gamma (5,), beta (5,), and a cotangent (the weights of y).

    A channel has only n = 18 values. So a variance with Bessel's correction, the factor n / (n - 1), differs clearly
    from one without.
    """
    rng = np.random.default_rng(5)
    x = (2 + 1.5 * rng.normal(size=(2, 3, 3, 5))).astype(np.float32)
    gamma, beta = rng.uniform(0.5, 2, 5).astype(np.float32), rng.normal(size=5).astype(np.float32)
    return x, gamma, beta, rng.normal(size=x.shape).astype(np.float32)


def test_the_fused_batch_norm_is_kerass_in_output_and_gradients() -> None:
    x, gamma, beta, cotangent = batch()
    right = batch_norm_in_float64(x, gamma, beta, 1e-3, cotangent)
    ours = batch_norm_of(FusedBatchNorm(momentum=0.9, epsilon=1e-3), x, gamma, beta, cotangent)
    stock = tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    theirs = batch_norm_of(stock, x, gamma, beta, cotangent)
    root = 1 / np.sqrt(x.var((0, 1, 2)).min())
    unit, largest = np.abs(x).max() * root, np.abs(cotangent).max()
    terms = x.size / x.shape[-1]
    scale = {"y": 2 * unit, "dx": 2 * root * unit * largest, "dgamma": terms * unit * largest, "dbeta": terms * largest}
    for name, value in right.items():
        allowed = 2 * np.abs(theirs[name] - value).max() + 8 * EPS * scale[name]
        assert np.abs(ours[name] - value).max() <= allowed, name


def test_moving_statistics_in_training() -> None:
    x, gamma, beta, cotangent = batch()
    layer, stock = (kind(momentum=0.9, epsilon=1e-3) for kind in (FusedBatchNorm, tf.keras.layers.BatchNormalization))
    for each in (layer, stock):
        batch_norm_of(each, x, gamma, beta, cotangent)
    terms, rounding = x.size // x.shape[-1], 32 * EPS * np.abs(x).max() ** 2
    assert np.abs(layer.moving_mean.numpy() - stock.moving_mean.numpy()).max() <= rounding
    # The layer of Keras 2 applies Bessel's correction to the variance. The layer of Keras 3 does not.
    bessel = terms / (terms - 1) if keras.find_keras_generation() == 3 else 1.0
    variance = (stock.moving_variance.numpy() - 0.9) * bessel + 0.9
    assert np.abs(layer.moving_variance.numpy() - variance).max() <= rounding
    unbiased = 0.9 + 0.1 * x.astype(np.float64).var((0, 1, 2), ddof=1)
    assert np.abs(layer.moving_variance.numpy() - unbiased).max() <= rounding


def test_inference_uses_the_moving_statistics_and_leaves_them() -> None:
    x, gamma, beta, cotangent = batch()
    layer = FusedBatchNorm(momentum=0.9, epsilon=1e-3)
    batch_norm_of(layer, x, gamma, beta, cotangent)
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    right = gamma * (x.astype(np.float64) - mean) / np.sqrt(variance + 1e-3) + beta
    rounding = 8 * EPS * (np.abs(x).max() + np.abs(mean).max()) * np.abs(gamma).max() / np.sqrt(variance.min())
    assert np.abs(layer(x, training=False).numpy() - right).max() <= rounding + 8 * EPS * np.abs(beta).max()
    assert np.array_equal(layer.moving_mean.numpy(), mean) and np.array_equal(layer.moving_variance.numpy(), variance)


def test_statistics_move_once_a_step_of_a_compiled_loop() -> None:
    x = batch()[0]
    layer = FusedBatchNorm(momentum=0.9, epsilon=1e-3)
    layer.build(x.shape)

    @tf.function
    def three_steps(x: tf.Tensor) -> None:
        for _ in tf.range(3):
            layer(x, training=True)

    three_steps(tf.constant(x))
    right = (1 - 0.9**3) * x.astype(np.float64).mean((0, 1, 2))
    assert np.abs(layer.moving_mean.numpy() - right).max() <= 32 * EPS * np.abs(x).max()


def test_the_variables_are_those_of_kerass_layer() -> None:
    shapes = []
    for layer in (FusedBatchNorm(momentum=0.9, epsilon=1e-3), tf.keras.layers.BatchNormalization()):
        layer.build((None, 4, 4, 6))
        shapes.append(([tuple(v.shape) for v in layer.trainable_variables], [tuple(v.shape) for v in layer.variables]))
    assert shapes[0] == shapes[1] == ([(6,)] * 2, [(6,)] * 4)


def test_the_fused_batch_norm_can_be_built_from_its_config() -> None:
    layer = FusedBatchNorm(momentum=0.7, epsilon=2e-3, name="norm")
    again = FusedBatchNorm.from_config(layer.get_config())
    assert (again.momentum, again.epsilon, again.name) == (0.7, 2e-3, "norm")
