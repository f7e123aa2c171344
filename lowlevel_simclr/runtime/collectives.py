"""Aborts collective ops, in which several devices exchange data. TensorFlow has no public API for this."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.eager import context


def abort_collectives(why: str) -> None:
    """Make every collective op of this process raise AbortedError, whether it is running now or starts later.

    TensorFlow's own strategies make the same private call, in 2.15 as well as in 2.21.

    Args:
        why: the message of the error.
    """
    context.context().abort_collective_ops(tf.errors.ABORTED, why)
