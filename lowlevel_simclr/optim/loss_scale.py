"""The loss scale: a factor that multiplies the loss, so that small gradients do not become 0 in float16."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# The first and the largest scale, and the number of steps without an overflow after which the scale grows.
FIRST_SCALE, LARGEST_SCALE, GROWTH_STEPS = 2.0**15, 2.0**24, 2000


class LossScale:
    """The interface of a loss scale. This class leaves the loss unscaled. It serves all precisions except float16.

    Attributes:
        dynamic: whether the scale changes during training.
        variables: the variables of the scale, which the checkpoint saves.
    """

    dynamic = False
    variables: list[tf.Variable] = []

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Return the scaled loss. The caller computes the gradient of this value."""
        return loss

    def unscale(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the gradients of the unscaled loss, and whether the training step may use them.

        Args:
            gradients: gradients of the scaled loss.

        Returns:
            The gradients of the unscaled loss, and a scalar bool.
        """
        return list(gradients), tf.constant(True)


class DynamicLossScale(LossScale):
    """The loss scale of float16 (Micikevicius et al. 2018).

    If a gradient overflows, the scale is halved and the caller must skip the step. After 2000 steps in a row without
    an overflow, the scale is doubled.
    """

    dynamic = True

    def __init__(self) -> None:
        self.scale = tf.Variable(FIRST_SCALE, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables = [self.scale, self.good_steps]

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Return the loss times the scale."""
        return loss * self.scale

    def unscale(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the gradients divided by the scale, and whether all are finite. Update the scale for the next step.

        Args:
            gradients: gradients of the scaled loss.

        Returns:
            float32 gradients of the unscaled loss, and a scalar bool. If it is False, the caller must skip the step.
        """
        found = [tf.cast(gradient, tf.float32) / self.scale for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in found])
        good = tf.where(finite, self.good_steps + 1, 0)
        grows = good >= GROWTH_STEPS
        larger = tf.minimum(self.scale * 2, LARGEST_SCALE)
        self.scale.assign(tf.where(finite, tf.where(grows, larger, self.scale), tf.maximum(self.scale / 2, 1.0)))
        self.good_steps.assign(tf.where(grows, tf.zeros_like(good), good))
        return found, finite


def build_loss_scale(precision: str) -> LossScale:
    """Return the loss scale that a precision needs: a dynamic one for float16, no scale for the others.

    Examples:
        >>> from lowlevel_simclr.optim.loss_scale import build_loss_scale
        >>> build_loss_scale("float16").dynamic, build_loss_scale("bfloat16").dynamic
        (True, False)
    """
    return DynamicLossScale() if precision == "float16" else LossScale()
