"""What differs between Keras 2 and Keras 3, and between devices; and nowhere else.

Not here: models, which are the same for both.
"""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

Variable = Any  # tf.Variable, or the variable of Keras 3, which is none but has its methods


# Keras 2 and Keras 3


def find_keras_version() -> str:
    """Of the Keras that is `tf.keras` here; TensorFlow's own Keras 2 has TensorFlow's number."""
    return str(getattr(tf.keras, "__version__", tf.__version__))


def find_keras_generation() -> int:
    """2 or 3: of the Keras that is `tf.keras` here."""
    return int(find_keras_version().split(".")[0])


def unwrap_variable(variable: Variable) -> tf.Variable:
    """The tf.Variable itself: Keras 3 wraps it in a variable of its own, Keras 2 does not."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def find_variable_path(variable: Variable) -> str:
    """Where a variable sits in its model, `layer/kernel`: alone the name says only "kernel" on Keras 3."""
    return str(getattr(variable, "path", variable.name)).split(":")[0]


def count_trainable(model: tf.keras.Model) -> int:
    """How many numbers training moves."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def name_variables(prefix: str, model: tf.keras.Model) -> dict[str, Variable]:
    """Every variable of a model by its place and path, the same from one program to the next."""
    return {
        f"{prefix}/{place:03d}/{find_variable_path(variable)}": variable
        for place, variable in enumerate(model.variables)
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


def import_tensorflow_addons() -> ModuleType | None:
    """tensorflow-addons where it can be had, else None; it knows Keras 2 only."""
    if find_keras_generation() != 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its own end on every import
        try:
            return importlib.import_module("tensorflow_addons")
        except ImportError:
            return None
