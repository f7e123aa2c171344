"""The devices that TensorFlow sees."""

from __future__ import annotations

import tensorflow as tf


def has_gpu() -> bool:
    """Return whether TensorFlow sees a GPU. If it does, the training step runs on the GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def finds_gpu() -> bool:
    """Return whether TensorFlow finds a GPU.

    The call does not start TensorFlow's runtime, so virtual devices can be set afterwards.
    """
    return bool(tf.config.get_visible_devices("GPU"))
