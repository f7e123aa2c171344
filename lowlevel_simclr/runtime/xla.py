"""Whether XLA compiles the function that is being traced. TensorFlow has no public API for this."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.framework import ops as framework_ops
from tensorflow.python.ops import control_flow_util


def is_inside_xla() -> bool:
    """Return whether XLA will compile the function that is being traced."""
    if tf.executing_eagerly():
        return False
    return bool(control_flow_util.GraphOrParentsInXlaContext(framework_ops.get_default_graph()))
