"""What differs between Keras 2 and Keras 3, and between devices; and nowhere else.

Not here: models, which are the same for both.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.reference.philox import LAYER_SEED, draw_words

Variable = Any  # tf.Variable, or the variable of Keras 3, which is none but has its methods

# float64 is no choice of a user: identities that float32 networks blur within a few steps are proven in it.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16", "float64": "float64"}
FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # what a processor needs to gain by bfloat16


# Keras 2 and Keras 3


def keras_generation() -> int:
    """2 or 3: of the Keras that is `tf.keras` here."""
    return int(getattr(tf.keras, "__version__", "2").split(".")[0])


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
        y, mean, variance = self._normalise(inputs, [], [], True)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return y

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
    """What this device does fast: bfloat16 or float16 where there are units for it, else float32.

    Of several GPUs the oldest decides. A processor is asked through /proc/cpuinfo; where there is none: float32.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        capability = min(found.get("compute_capability", (0, 0)) for found in details)
        return "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return "bfloat16" if words & FAST_BFLOAT16 else "float32"
