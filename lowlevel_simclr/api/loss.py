"""`lowlevel_simclr.nt_xent` and `lowlevel_simclr.NTXent`: SimCLR's loss as a function and as a Keras loss."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowlevel_simclr.api.implementation import check_ops, choose_ops
from lowlevel_simclr.contract.nt_xent_checks import check_temperature

PACKAGE = "lowlevel_simclr"  # Keras finds the classes of this package under this name when it loads a model


def nt_xent(z: Any, temperature: float | tf.Tensor = 0.2, *, ops: str = "auto") -> tf.Tensor:
    """Return the NT-Xent loss of every view (SimCLR, equation (1)).

    A view is a random crop of an image with changed colours. Every image has two. Each view is compared with all other
    views of the batch. The loss is small if the most similar one is the other view of the same image. The loss is
    differentiable in z and in the temperature. It works eagerly, in a graph and under jit_compile.

    Args:
        z: (2N, d) projections of both views of N images: all N first views, then all N second views, in the same order.
            The type is bfloat16, float16, float32 or float64. The loss divides each row by its norm.
        temperature: tau, above 0. The similarities are divided by it.
        ops: "native" for this package's own kernels, "stock" for plain TensorFlow. "auto" is native if the kernels can
            be used here, and stock otherwise.

    Returns:
        (2N,) losses, float64 if z is float64 and float32 otherwise. Their mean is the loss of the paper. If all views
        have the same z, every loss is log(2N - 1).

    Raises:
        ValueError: if z is not (2N, d), or the temperature is not a positive finite number.
        TypeError: if the type of z is not one of the four above.
        NativeLibraryError: if the native library is from another version or does not load.

    Example:
        >>> import lowlevel_simclr as ls
        >>> z = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]  # two images; both views of each agree
        >>> ls.nt_xent(z, temperature=0.5).numpy().round(2)
        array([0.24, 0.24, 0.24, 0.24], dtype=float32)
    """
    z = tf.convert_to_tensor(z)
    return choose_ops(check_ops(ops), z).nt_xent(z, temperature)


@tf.keras.utils.register_keras_serializable(package=PACKAGE)
class NTXent(tf.keras.losses.Loss):
    """NT-Xent as a Keras loss, for `compile(loss=...)`.

    `y_pred` is z (2N, d), as in `nt_xent`. `y_true` is ignored, so `fit(images)` is enough on Keras 3. Keras 2 computes
    no loss without `y_true`. On Keras 2, pass any array with one row for each image, such as zeros.

    Args:
        temperature: tau, above 0.
        ops: "auto", "native" or "stock", see `nt_xent`.
        **options: options of `keras.losses.Loss`: reduction (by default the mean over the 2N views), name, dtype.

    Raises:
        ValueError: if the temperature is not a positive finite number.

    Example:
        >>> import numpy as np
        >>> import lowlevel_simclr as ls
        >>> loss = ls.NTXent(temperature=0.5)
        >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
        >>> print(f"{float(loss(np.zeros(4), z)):.3f}")
        0.240
    """

    def __init__(self, temperature: float = 0.2, *, ops: str = "auto", **options: Any) -> None:
        super().__init__(**{"name": "nt_xent", **options})
        self.temperature = float(check_temperature(temperature))
        self.ops = check_ops(ops)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Return the loss, reduced as the option `reduction` says. `y_true` may be None."""
        return super().__call__(y_pred if y_true is None else y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of every view, (2N,)."""
        return nt_xent(y_pred, self.temperature, ops=self.ops)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments of this loss, as Keras needs them to save and load it."""
        return {**super().get_config(), "temperature": self.temperature, "ops": self.ops}
