"""The ways in which TensorFlow runs an op: eagerly, in a graph, and compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

MODES = ("eager", "graph", "xla")


def build_for_mode(
    compute: Callable[..., Any], mode: str, signature: Sequence[tf.TensorSpec] | None = None
) -> Callable[..., Any]:
    """Return `compute` itself (eager), its graph (graph) or its compiled graph (xla).

    Args:
        compute: takes tensors, returns tensors.
        mode: one of MODES.
        signature: shapes and types of the graph's arguments. Default: the shapes and types of the first call. XLA needs
            known shapes, so with xla the function ignores this argument.
    """
    if mode == "eager":
        return compute
    if mode == "xla":
        return tf.function(compute, jit_compile=True)
    return tf.function(compute, input_signature=signature)
