"""What differs between Keras 2 and Keras 3, and between devices; and nowhere else.

Not here: models, which are the same for both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from lowlevel_simclr import processor
from lowlevel_simclr.reference.philox import LAYER_SEED, draw_words

Variable = Any  # tf.Variable, or the variable of Keras 3, which is none but has its methods

# float64 is no choice of a user: identities that float32 networks blur within a few steps are proven in it.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16", "float64": "float64"}
BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16"}  # a processor multiplies bfloat16 where it has one of them


# Keras 2 and Keras 3


def keras_version() -> str:
    """Of the Keras that is `tf.keras` here; TensorFlow's own Keras 2 has TensorFlow's number."""
    return str(getattr(tf.keras, "__version__", tf.__version__))


def keras_generation() -> int:
    """2 or 3: of the Keras that is `tf.keras` here."""
    return int(keras_version().split(".")[0])


def tensorflow_variable(variable: Variable) -> tf.Variable:
    """The tf.Variable itself: Keras 3 wraps it in a variable of its own, Keras 2 does not."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def variable_path(variable: Variable) -> str:
    """Where a variable sits in its model, `layer/kernel`: alone the name says only "kernel" on Keras 3."""
    return str(getattr(variable, "path", variable.name)).split(":")[0]


def trainable_count(model: tf.keras.Model) -> int:
    """How many numbers training moves."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def named_variables(prefix: str, model: tf.keras.Model) -> dict[str, Variable]:
    """Every variable of a model by its place and path, the same from one program to the next."""
    return {
        f"{prefix}/{place:03d}/{variable_path(variable)}": variable for place, variable in enumerate(model.variables)
    }


def assign_named(variables: dict[str, Variable], arrays: dict[str, np.ndarray]) -> None:
    """Gives each variable the array of its name; arrays of other names are left alone.

    Raises:
        ValueError: an array is missing or of another shape; nothing has been assigned then.
    """
    for name, variable in variables.items():
        if name not in arrays:
            raise ValueError(f"it has no '{name}'")
        if tuple(variable.shape) != arrays[name].shape:
            raise ValueError(f"'{name}' has shape {arrays[name].shape} there and {tuple(variable.shape)} here")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def layer_seed(seed: int, place: int) -> int:
    """The seed of the initialiser at a place in its model: a function of the run's seed alone.

    Without one, Keras 2 seeds an initialiser from a global counter and Keras 3 from a global generator, so that the
    weights would depend on what was built before.
    """
    return int(draw_words(seed, 0, place, 0, LAYER_SEED)[..., 0].item()) % 2**31


def antialiased_resize(images: Any, size: int) -> Any:
    """Symbolic images (B, H, W, C) -> (B, size, size, C), as `tf.image.resize(antialias=True)` does it.

    By the operation, which Keras saves and opens as a layer. Not by the layer Resizing: Keras 2's has no antialias, and
    Keras 3's takes `training` for True where nobody says, and the layers behind it follow when the model is called
    directly: BatchNorm would train.
    """
    if keras_generation() == 2:
        return tf.image.resize(images, (size, size), "bilinear", antialias=True)
    return tf.keras.ops.image.resize(
        images, (size, size), interpolation="bilinear", antialias=True, data_format="channels_last"
    )


def tensorflow_addons() -> ModuleType | None:
    """tensorflow-addons where it can be had, else None; it knows Keras 2 only."""
    if keras_generation() != 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its own end on every import
        try:
            return importlib.import_module("tensorflow_addons")
        except ImportError:
            return None


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
def batch_statistics(statistics: BatchStatistics) -> Iterator[None]:
    """Within it the layers that are called, or traced, follow `statistics`."""
    before = current_statistics()
    _traced.statistics = statistics
    try:
        yield
    finally:
        _traced.statistics = before


def current_statistics(**changed: Any) -> BatchStatistics:
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
        statistics = current_statistics()
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
        return _synchronised(tf.cast(x, kind), gamma, beta, self.epsilon, statistics, x.dtype)

    def _normalise(self, x: tf.Tensor, mean: Any, variance: Any, training: bool) -> Any:
        """y (B, H, W, C) in the type of x; mean and variance (C,) that a moving statistic takes up, float32."""
        kind = tf.float64 if x.dtype == tf.float64 else tf.float32
        beta = tf.zeros_like(self.gamma) if self.beta is None else self.beta
        gamma, beta, mean, variance = (tf.cast(value, kind) for value in (self.gamma, beta, mean, variance))
        if kind == tf.float64:  # the kernel has no float64
            return _batch_norm_in_float64(x, gamma, beta, mean, variance, self.epsilon, training)
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=self.epsilon, is_training=training
        )[:3]


def _batch_norm_in_float64(
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


def _synchronised(
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


# Devices


def set_precision(precision: str) -> None:
    """What layers made from now on compute in; their variables are float32 whatever it is (float64 for float64).

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in POLICIES:
        raise ValueError(f"there is no precision '{precision}': give one of {', '.join(POLICIES)}")
    tf.keras.mixed_precision.set_global_policy(POLICIES[precision])


def fast_precision() -> str:
    """What this device does fastest: bfloat16 or float16 where its units for it are the faster ones, else float32.

    Of several GPUs the oldest decides. A processor is asked through /proc/cpuinfo; where there is none: float32.
    """
    capability = _gpu_capability()
    if capability is not None:
        return "bfloat16" if has_bfloat16() else "float16" if capability >= (7, 0) else "float32"
    words = processor.words()
    # From Sapphire Rapids on (AVX512-FP16 tells them) AMX does Intel's bfloat16, and AVX-512's own does half the
    # products a second of float32. A virtual machine may hide AMX: float32 trains 1.3 to 1.6 times as fast there.
    slow = {"GenuineIntel", "avx512_fp16"} <= words and "amx_bf16" not in words
    return "bfloat16" if has_bfloat16() and not slow else "float32"


def has_bfloat16() -> bool:
    """Whether this device multiplies bfloat16 at all, be it slower than float32."""
    capability = _gpu_capability()
    return bool(processor.words() & BFLOAT16_UNITS) if capability is None else capability >= (8, 0)


def _gpu_capability() -> tuple[int, int] | None:
    """CUDA's compute capability of the oldest GPU, (0, 0) where it tells none; None without a GPU."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return min((found.get("compute_capability", (0, 0)) for found in details), default=None)


def abort_collectives(why: str) -> None:
    """Ends every collective op of this process, those under way and all later ones, with an AbortedError that says why.

    TensorFlow has no public way; its own strategies call the same on 2.15 as on 2.21.
    """
    context.context().abort_collective_ops(tf.errors.ABORTED, why)
