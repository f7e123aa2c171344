"""BatchNorm with TensorFlow's fused kernel, and the choice of the rows from which it takes its statistics.

The statistics can be those of the batch, of all replicas (devices that share the batch), of a micro-batch (a part of
the batch that goes through the encoder at once) or of a ghost group (a fixed number of images that are normalised
together). The context manager `use_batch_statistics` makes the choice. Every layer that is called or traced inside the
context obeys this choice. The inputs are views: two random crops of each image of the batch.
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
    """The rows over which FusedBatchNorm takes its statistics in training, and the update of its moving statistics:

        moving <- moving x (momentum if `first` else 1) + (1 - momentum) x `share` x the batch's statistic

    Suppose that a step sees k micro-batches one after the other, each with share = 1 / k, and that `first` is true only
    for the first one. Together, the k updates are moving <- momentum x moving + (1 - momentum) x (mean of the k
    statistics). So momentum acts once per step, and the order of the micro-batches does not matter.

    Attributes:
        moves: whether the moving statistics are updated at all.
        first: whether this is the first micro-batch of its step; a bool or a scalar bool tensor.
        share: 1 / k for k micro-batches in a step.
        group: number of images in a ghost group, or 0 for the whole batch. Both views of each image are normalised
            together, so a group has 2 x `group` rows.
        gather: function that takes this replica's tensor (1, ...) and returns the tensors of all R replicas (R, ...).
            If it is None, the statistics come from this replica alone.
        add_up: function that returns the sum of a tensor over the replicas. It is needed only with `gather`.
    """

    moves: bool = True
    first: tf.Tensor | bool = True
    share: float = 1.0
    group: int = 0
    gather: Callable[[tf.Tensor], tf.Tensor] | None = None
    add_up: Callable[[tf.Tensor], tf.Tensor] | None = None


_traced = threading.local()  # each replica runs in its own thread


@contextlib.contextmanager
def use_batch_statistics(statistics: BatchStatistics) -> Iterator[None]:
    """Make the layers that are called or traced inside this context follow `statistics`.

    Examples:
        >>> from lowlevel_simclr.model.batch_norm import BatchStatistics, get_batch_statistics, use_batch_statistics
        >>> with use_batch_statistics(BatchStatistics(group=32)):
        ...     get_batch_statistics().group
        32
    """
    before = get_batch_statistics()
    _traced.statistics = statistics
    try:
        yield
    finally:
        _traced.statistics = before


def get_batch_statistics(**changed: Any) -> BatchStatistics:
    """Return the `BatchStatistics` that layers follow at this point of the program.

    Args:
        **changed: fields of `BatchStatistics` to replace in the returned value.
    """
    return dataclasses.replace(getattr(_traced, "statistics", BatchStatistics()), **changed)


@tf.keras.utils.register_keras_serializable(package="lowlevel_simclr")
class FusedBatchNorm(tf.keras.layers.BatchNormalization):
    """BatchNormalization over (B, H, W, C) with TensorFlow's fused kernel, on Keras 2 and Keras 3.

    Keras 3's own layer does not use that kernel in training. Otherwise this layer is identical to Keras's layer. Both
    have the same options and the same four variables in the same order: gamma, beta (unless center is False),
    moving_mean, moving_variance. So weights can be copied unchanged from one layer to the other. The variables are
    float32 under mixed precision. A frozen layer normalises by the moving statistics.

    The kernel returns the batch's variance with Bessel's correction n / (n - 1), where a channel has n = B H W values.
    So the moving variance of this layer has the correction. Keras 2 corrects the moving variance too, Keras 3 does not.
    The variance by which the batch is normalised is not corrected.

    Raises:
        ValueError: if an option is given that the kernel does not support.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        refused = {name: options[name] for name in ("renorm", "synchronized") if options.get(name)}
        refused |= {name: False for name in ("scale",) if options.get(name) is False}
        if refused:
            raise ValueError(
                f"FusedBatchNorm does not support {refused}. Use tf.keras.layers.BatchNormalization for that."
            )

    def build(self, input_shape: Any) -> None:
        """Create the four variables, (C,) each.

        Args:
            input_shape: (B, H, W, C).

        Raises:
            ValueError: if the input does not have four axes, or the layer normalises an axis other than the last.
        """
        axes = tf.nest.flatten(self.axis)
        if len(input_shape) != 4 or len(axes) != 1 or axes[0] not in (-1, 3):
            raise ValueError(
                f"FusedBatchNorm normalises the last axis of (B, H, W, C), but the input has shape {input_shape} and "
                f"the axis is {axes}. Use tf.keras.layers.BatchNormalization for that."
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise by the batch's statistics in training, and by the moving statistics otherwise.

        In training, the moving statistics are updated as well.

        Args:
            inputs: (B, H, W, C) images.
            training: whether this is a training step.
            mask: ignored. The argument exists because `clone_model` passes every argument of Keras's layer.

        Returns:
            (B, H, W, C) in the type of `inputs`.
        """
        if not (training and self.trainable):
            return self._normalise(inputs, self.moving_mean, self.moving_variance, False)[0]
        statistics = get_batch_statistics()
        if statistics.gather is not None:
            y, mean, variance = self._normalise_over_replicas(inputs, statistics)
        elif statistics.group:
            y, mean, variance = self._normalise_in_groups(inputs, statistics.group)
        else:
            y, mean, variance = self._normalise(inputs, [], [], True)
        if statistics.moves:
            self._move(statistics, mean, variance)
        return y

    def _move(self, statistics: BatchStatistics, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Update the moving statistics by the formula in `BatchStatistics`."""
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept = moving * self.momentum
            if statistics.first is not True:
                kept = tf.where(statistics.first, kept, moving)
            moving.assign(kept + value * ((1 - self.momentum) * statistics.share))

    def _normalise_in_groups(self, x: tf.Tensor, group: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalise each group of images separately (ghost BatchNorm, Hoffer et al. 2017).

        Args:
            x: (B, H, W, C): B / 2 first views, then B / 2 second views.
            group: number of images in a group.

        Returns:
            y (B, H, W, C), and the mean and the variance, each averaged over the groups, (C,) each.

        Raises:
            ValueError: if the batch cannot be divided into whole groups.
        """
        if x.shape[0] is None or x.shape[0] % (2 * group):
            raise ValueError(
                f"A batch of {x.shape[0]} views cannot be divided into ghost groups of {group} images. Use a group "
                "size that divides the number of images."
            )
        inner = [x.shape[0] // 2 // group, group, *x.shape[1:]]  # groups, images, H, W, C
        by_group = tf.transpose(tf.reshape(x, [2, *inner]), [1, 0, 2, 3, 4, 5])
        parts = tf.unstack(tf.reshape(by_group, [inner[0], 2 * group, *x.shape[1:]]))
        ys, means, variances = zip(*(self._normalise(part, [], [], True) for part in parts))
        y = tf.transpose(tf.reshape(tf.stack(ys), [inner[0], 2, *inner[1:]]), [1, 0, 2, 3, 4, 5])
        return tf.reshape(y, x.shape), tf.add_n(means) / len(parts), tf.add_n(variances) / len(parts)

    def _normalise_over_replicas(
        self, x: tf.Tensor, statistics: BatchStatistics
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return y, mean and variance as `_normalise` does, but with the statistics over the rows of all replicas."""
        kind = tf.float64 if x.dtype == tf.float64 else tf.float32
        beta = tf.zeros_like(self.gamma) if self.beta is None else self.beta
        gamma, beta = tf.cast(self.gamma, kind), tf.cast(beta, kind)
        return _merge_and_normalise(tf.cast(x, kind), gamma, beta, self.epsilon, statistics, x.dtype)

    def _normalise(self, x: tf.Tensor, mean: Any, variance: Any, training: bool) -> Any:
        """Return y (B, H, W, C) in the type of x, and the mean and variance (C,) for the moving statistics.

        The statistics are float32, or float64 for float64 images.
        """
        kind = tf.float64 if x.dtype == tf.float64 else tf.float32
        beta = tf.zeros_like(self.gamma) if self.beta is None else self.beta
        gamma, beta, mean, variance = (tf.cast(value, kind) for value in (self.gamma, beta, mean, variance))
        if kind == tf.float64:  # the kernel does not support float64
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
    """Compute in float64 what the kernel computes. The returned variance has Bessel's correction."""
    if training:
        mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
    y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)
    count = tf.cast(tf.size(x) // tf.size(mean), tf.float64)  # B H W
    return y, mean, variance * count / tf.maximum(count - 1, 1)


def _merge_and_normalise(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, statistics: BatchStatistics, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise by the statistics of all replicas' rows, with one collective op in each pass.

    The forward pass gathers the mean and the variance of each replica, 2 C numbers, and merges them (Chan et al. 1979).
    The merge never subtracts two large numbers from each other, which would lose precision. Through the statistics, y
    of each row depends on every other row. So the backward pass needs two sums over all replicas: sum(dy) and
    sum(dy x-hat), where x-hat is the normalised x. These are 2 C numbers too.

    Args:
        x: (B, H, W, C) float32 or float64. B must be the same on every replica.
        gamma: (C,) scale.
        beta: (C,) shift.
        epsilon: number added to the variance.
        statistics: statistics whose `gather` and `add_up` are set.
        dtype: type of y.

    Returns:
        y (B, H, W, C), and mean and variance (C,). The variance has Bessel's correction. No gradient flows through the
        mean and the variance.
    """
    gather, add_up = statistics.gather, statistics.add_up
    assert gather is not None and add_up is not None

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
            of_dy, of_unit = tf.unstack(add_up(own_sums))
            dx = gamma * inverse * (dy - of_dy / count - unit * (of_unit / count))
            return dx, own_sums[1], own_sums[0]

        return (y, mean, variance * count / tf.maximum(count - 1, 1)), gradient

    y, mean, variance = normalise(x, gamma, beta)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)
