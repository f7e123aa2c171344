"""Which devices TensorFlow sees."""

from __future__ import annotations

import tensorflow as tf


def has_gpu() -> bool:
    """Whether the step runs on a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))
