"""Handles all differences between Keras 2 and Keras 3.

The code that builds the models is the same for both.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

Variable = Any  # a tf.Variable, or a Keras 3 variable, which has the same methods


# Keras 2 and Keras 3


def find_keras_version() -> str:
    """Return the version of `tf.keras`. For Keras 2 inside TensorFlow, this is the version of TensorFlow."""
    return str(getattr(tf.keras, "__version__", tf.__version__))


def find_keras_generation() -> int:
    """Return the major version of `tf.keras`: 2 or 3."""
    return int(find_keras_version().split(".")[0])


@functools.cache  # Keras 2 has no public name for the class
def find_symbolic_type() -> type:
    """Return the class of symbolic tensors, such as `tf.keras.Input` returns."""
    return tf.keras.KerasTensor if find_keras_generation() == 3 else type(tf.keras.Input((1,)))


def find_producer(tensor: Any) -> Any:
    """Return the layer that produced a symbolic tensor."""
    history = tensor._keras_history
    return history.operation if find_keras_generation() == 3 else history.layer


def unwrap_variable(variable: Variable) -> tf.Variable:
    """Return the tf.Variable itself. Keras 3 wraps it in its own variable, and Keras 2 does not."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def find_variable_path(variable: Variable) -> str:
    """Return a variable's path in its model, such as `layer/kernel`. In Keras 3 its name is only `kernel`."""
    return str(getattr(variable, "path", variable.name)).split(":")[0]


def count_trainable(model: tf.keras.Model) -> int:
    """Return the number of trainable parameters."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def name_variables(prefix: str, model: tf.keras.Model) -> dict[str, Variable]:
    """Return a dict from names to the variables of a model.

    A name has the position and the path of the variable. So the names are the same in every process.
    """
    return {
        f"{prefix}/{place:03d}/{find_variable_path(variable)}": variable
        for place, variable in enumerate(model.variables)
    }


def assign_named(variables: dict[str, Variable], arrays: dict[str, np.ndarray]) -> None:
    """Assign to each variable the array with its name. Arrays with other names are ignored.

    Raises:
        ValueError: if an array is missing or has another shape. Then no variable has changed.
    """
    for name, variable in variables.items():
        if name not in arrays:
            raise ValueError(f"the array '{name}' is missing")
        if tuple(variable.shape) != arrays[name].shape:
            raise ValueError(
                f"the array '{name}' has shape {arrays[name].shape}, but the variable has {tuple(variable.shape)}"
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def import_tensorflow_addons() -> ModuleType | None:
    """Return tensorflow-addons, or None if it is not installed. It needs Keras 2, so with Keras 3 return None too."""
    if find_keras_generation() != 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorflow-addons announces its end of life on every import
        try:
            return importlib.import_module("tensorflow_addons")
        except ImportError:
            return None
