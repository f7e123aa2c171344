"""Everything that this package takes from TensorFlow's XLA without a public API.

Another version of TensorFlow may lack these functions. `tests/runtime/test_xla.py` shows that the package then says so
in one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from tensorflow.python.framework import ops as framework_ops
from tensorflow.python.ops import control_flow_util

# The newest version of XlaCallModule's serialization that TensorFlow 2.15 knows. Later releases still read it.
_SERIALIZATION_VERSION = 9


def is_inside_xla() -> bool:
    """Return whether XLA will compile the function that is being traced."""
    if tf.executing_eagerly():
        return False
    return bool(control_flow_util.GraphOrParentsInXlaContext(framework_ops.get_default_graph()))


def call_module(
    inputs: Sequence[tf.Tensor],
    module: str,
    outputs: Sequence[tuple[Sequence[int], tf.DType]],
    platforms: Sequence[str],
) -> list[tf.Tensor]:
    """Run a StableHLO module in an XlaCallModule op. jax2tf makes the same call.

    Args:
        inputs: the arguments of the module's function `main`.
        module: the text of the module.
        outputs: shape and type of each result.
        platforms: some of "CPU" and "CUDA". With several platforms, the function has an additional first argument: the
            number of the platform that it runs on.

    Returns:
        The results of `main`.
    """
    from tensorflow.compiler.tf2xla.python import xla  # here, so that only this call fails if it is missing

    results = xla.call_module(
        list(inputs),
        version=_SERIALIZATION_VERSION,
        module=module,
        Tout=[dtype for _, dtype in outputs],
        Sout=[list(shape) for shape, _ in outputs],
        platforms=tuple(platforms),
    )
    return list(results)
