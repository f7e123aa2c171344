"""The loss scale: a factor that keeps small gradients above the smallest float16."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

FIRST_SCALE, LARGEST_SCALE, GROWTH_STEPS = 2.0**15, 2.0**24, 2000  # of the float16 loss scale


class LossScale:
    """No scale: for precisions with the range of float32."""

    dynamic = False
    variables: list[tf.Variable] = []

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss whose gradient is taken."""
        return loss

    def unscale(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients of the loss itself, float32, and whether they may be used."""
        return list(gradients), tf.constant(True)


class DynamicLossScale(LossScale):
    """The scale of float16 (Micikevicius et al. 2018): halves and skips where a gradient overflows."""

    dynamic = True

    def __init__(self) -> None:
        self.scale = tf.Variable(FIRST_SCALE, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables = [self.scale, self.good_steps]

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss times the scale."""
        return loss * self.scale

    def unscale(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients over the scale, and whether all are finite; moves the scale for the next step."""
        found = [tf.cast(gradient, tf.float32) / self.scale for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in found])
        good = tf.where(finite, self.good_steps + 1, 0)
        grows = good >= GROWTH_STEPS
        larger = tf.minimum(self.scale * 2, LARGEST_SCALE)
        self.scale.assign(tf.where(finite, tf.where(grows, larger, self.scale), tf.maximum(self.scale / 2, 1.0)))
        self.good_steps.assign(tf.where(grows, tf.zeros_like(good), good))
        return found, finite


def build_loss_scale(precision: str) -> LossScale:
    """What the precision needs."""
    return DynamicLossScale() if precision == "float16" else LossScale()
