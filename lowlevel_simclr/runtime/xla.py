"""What a function that is being traced will become; TensorFlow says it in no public place."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.framework import ops as framework_ops
from tensorflow.python.ops import control_flow_util


def is_inside_xla() -> bool:
    """Whether what is being traced will be compiled by XLA."""
    if tf.executing_eagerly():
        return False
    return bool(control_flow_util.GraphOrParentsInXlaContext(framework_ops.get_default_graph()))
