"""Restores the settings of the caller's process that training changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.framework import config as framework_config


@contextlib.contextmanager
def keep_process_state() -> Iterator[None]:
    """Restore Keras' global dtype policy and TensorFlow's op determinism at the end of the block.

    TensorFlow has no public function that disables op determinism. If it stays enabled, every random op without a seed
    raises an error, for example Dropout in a model of the caller.
    """
    policy = tf.keras.mixed_precision.global_policy()
    deterministic = framework_config.is_op_determinism_enabled()
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
        if not deterministic:
            framework_config.disable_op_determinism()
