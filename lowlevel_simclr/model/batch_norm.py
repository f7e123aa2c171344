"""BatchNorm by TensorFlow's fused kernel, and over what its statistics are taken.

The statistics are those of the batch, of all replicas, of a micro-batch or of a ghost group: a context says which, and
every layer that is called or traced within it follows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class BatchStatistics:
    """Over what FusedBatchNorm takes a batch's statistics in training, and how they move the moving ones.

    moving <- moving x (momentum if `first` else 1) + (1 - momentum) x `share` x the batch's statistic.

    So where a step sees k micro-batches, one after the other with share = 1 / k and `first` true of the first alone,
    moving <- momentum x moving + (1 - momentum) x the mean of the k statistics: moved once a step, in any order.

    moves: whether the moving statistics move at all.
    first: whether this is the first micro-batch of its step; a scalar bool.
    share: 1 / k.
    group: images of a ghost group; both views of each are normalised together (2 group rows); 0 for the whole batch.
    gather: (1, ...) of this replica -> (R, ...) of all; None where statistics are this replica's alone.
    total: the sum of a tensor over the replicas.
    """

    moves: bool = True
    first: tf.Tensor | bool = True
    share: float = 1.0
    group: int = 0
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None
    total: Callable[[tf.Tensor], tf.Tensor] | None = None


_traced = threading.local()  # one replica is one thread


@contextlib.contextmanager
def use_batch_statistics(statistics: BatchStatistics) -> Iterator[None]:
    """Within it the layers that are called, or traced, follow `statistics`."""
    before = get_batch_statistics()
    _traced.statistics = statistics
    try:
        yield
    finally:
        _traced.statistics = before


def get_batch_statistics(**changed: Any) -> BatchStatistics:
    """What layers follow here, some of it changed."""
    return dataclasses.replace(getattr(_traced, "statistics", BatchStatistics()), **changed)


@tf.keras.utils.register_keras_serializable(package="lowlevel_simclr")
class FusedBatchNorm(tf.keras.layers.BatchNormalization):
    """BatchNormalization over (B, H, W, C) by TensorFlow's one-pass kernel, on Keras 2 and Keras 3 alike.

    Keras 3's own layer does not use that kernel in training. This is Keras's layer otherwise: its options, its four
    variables in its order (gamma, beta unless center is False, moving_mean, moving_variance; float32 under mixed
    precision), frozen it normalises by the moving statistics. So weights go from one to the other as they are.

    The kernel returns the batch's variance with Bessel's correction, n / (n - 1) for the n = B H W values of a channel,
    and so the moving variance has it here (and in Keras 2, but not in Keras 3). The normalisation itself does not.

    Raises:
        ValueError: an option that the kernel does not have.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        refused = {name: options[name] for name in ("renorm", "synchronized") if options.get(name)}
        refused |= {name: False for name in ("scale",) if options.get(name) is False}
        if refused:
            raise ValueError(f"the fused BatchNorm has no {refused}: use tf.keras.layers.BatchNormalization for that")

    def build(self, input_shape: Any) -> None:
        """Makes the four variables, (C,) each.

        Raises:
            ValueError: the input is not (B, H, W, C), or its channels are not what is normalised.
        """
        axes = tf.nest.flatten(self.axis)
        if len(input_shape) != 4 or len(axes) != 1 or axes[0] not in (-1, 3):
            raise ValueError(f"the fused BatchNorm is for (B, H, W, C) and its last axis, not {input_shape}, {axes}")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalises by the batch's statistics, and moves the moving ones, in training; by the moving ones else.

        `mask` is there because `clone_model` hands over what Keras's layer takes; images have none.
        """
        if not (training and self.trainable):
            return self._normalise(inputs, self.moving_mean, self.moving_variance, False)[0]
        statistics = get_batch_statistics()
        if statistics.gather is not None:
            y, mean, variance = self._over_replicas(inputs, statistics)
        elif statistics.group:
            y, mean, variance = self._in_groups(inputs, statistics.group)
        else:
            y, mean, variance = self._normalise(inputs, [], [], True)
        if statistics.moves:
            self._move(statistics, mean, variance)
        return y

    def _move(self, statistics: BatchStatistics, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """The moving statistics, by the rule of `BatchStatistics`."""
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept = moving * self.momentum
            if statistics.first is not True:
                kept = tf.where(statistics.first, kept, moving)
            moving.assign(kept + value * ((1 - self.momentum) * statistics.share))

    def _in_groups(self, x: tf.Tensor, group: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Each group of images alone (ghost BatchNorm, Hoffer et al. 2017): y, and the means of the groups' statistics.

        Raises:
            ValueError: the images are no whole number of groups.
        """
        if x.shape[0] is None or x.shape[0] % (2 * group):
            raise ValueError(f"a batch of {x.shape[0]} views has no groups of {group} images: give a divisor")
        inner = [x.shape[0] // 2 // group, group, *x.shape[1:]]  # groups, images, H, W, C
        by_group = tf.transpose(tf.reshape(x, [2, *inner]), [1, 0, 2, 3, 4, 5])
        parts = tf.unstack(tf.reshape(by_group, [inner[0], 2 * group, *x.shape[1:]]))
        ys, means, variances = zip(*(self._normalise(part, [], [], True) for part in parts))
        y = tf.transpose(tf.reshape(tf.stack(ys), [inner[0], 2, *inner[1:]]), [1, 0, 2, 3, 4, 5])
        return tf.reshape(y, x.shape), tf.add_n(means) / len(parts), tf.add_n(variances) / len(parts)

    def _over_replicas(self, x: tf.Tensor, statistics: BatchStatistics) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The statistics of all replicas' rows: y, and mean and variance as the kernel gives them."""
        kind = tf.float64 if x.dtype == tf.float64 else tf.float32
        gamma, beta = tf.cast(self.gamma, kind), tf.cast(self.beta, kind)
        return _normalise_over_replicas(tf.cast(x, kind), gamma, beta, self.epsilon, statistics, x.dtype)

    def _normalise(self, x: tf.Tensor, mean: Any, variance: Any, training: bool) -> Any:
        """y (B, H, W, C) in the type of x; mean and variance (C,) that a moving statistic takes up, float32."""
        kind = tf.float64 if x.dtype == tf.float64 else tf.float32
        beta = tf.zeros_like(self.gamma) if self.beta is None else self.beta
        gamma, beta, mean, variance = (tf.cast(value, kind) for value in (self.gamma, beta, mean, variance))
        if kind == tf.float64:  # the kernel has no float64
            return _normalise_in_float64(x, gamma, beta, mean, variance, self.epsilon, training)
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=self.epsilon, is_training=training
        )[:3]


def _normalise_in_float64(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    epsilon: float,
    training: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What the kernel computes, Bessel's correction of the variance it returns included, in plain float64."""
    if training:
        mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
    y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
    count = tf.cast(tf.size(x) // tf.size(mean), tf.float64)  # B H W
    return y, mean, variance * count / tf.maximum(count - 1, 1)


def _normalise_over_replicas(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, statistics: BatchStatistics, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """BatchNorm over the rows of all replicas, one collective in either direction.

    Forward gathers mean and squared deviation of each replica, 2 C numbers, and merges them (Chan et al. 1979: no
    difference of large numbers). Backward adds up sum(dy) and sum(dy x-hat), 2 C numbers, because a row's loss depends
    on every row through the statistics.

    Args:
        x: (B, H, W, C) float32 or float64; B is the same on every replica.
        gamma: (C,).
        beta: (C,).
        epsilon: added to the variance.
        statistics: has `gather` and `total`.
        dtype: of y.

    Returns:
        y (B, H, W, C), and mean and variance (C,), the latter with Bessel's correction; neither has a gradient.
    """
    gather, total = statistics.gather, statistics.total
    assert gather is not None and total is not None

    @tf.custom_gradient
    def normalise(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        own = tf.cast(tf.size(x) // tf.size(gamma), x.dtype)  # B H W
        own_mean, own_variance = tf.nn.moments(x, axes=[0, 1, 2])
        means, variances = tf.unstack(gather(tf.stack([own_mean, own_variance])[None]), axis=1)  # (R, C) each
        count = own * tf.cast(tf.shape(means)[0], x.dtype)
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
        inverse = tf.math.rsqrt(variance + epsilon)
        y = tf.cast((x - mean) * (inverse * gamma) + beta, dtype)

        def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            dy = tf.cast(dy, x.dtype)
            unit = (x - mean) * inverse
            own_sums = tf.stack([tf.reduce_sum(dy, axis=[0, 1, 2]), tf.reduce_sum(dy * unit, axis=[0, 1, 2])])
            of_dy, of_unit = tf.unstack(total(own_sums))
            dx = gamma * inverse * (dy - of_dy / count - unit * (of_unit / count))
            return dx, own_sums[1], own_sums[0]

        return (y, mean, variance * count / tf.maximum(count - 1, 1)), gradient

    y, mean, variance = normalise(x, gamma, beta)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)
