"""The devices that TensorFlow sees."""

from __future__ import annotations

import tensorflow as tf


def has_gpu() -> bool:
    """Return whether TensorFlow sees a GPU. The step then runs on it."""
    return bool(tf.config.list_logical_devices("GPU"))
