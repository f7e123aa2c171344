"""The parts of TensorFlow's XLA that this package uses although TensorFlow has no public API for them.

Another version of TensorFlow may lack these functions. `tests/runtime/test_xla.py` shows that the package then says so
in one sentence.
"""

from __future__ import annotations

import functools
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


@functools.cache
def find_xla_problem() -> str | None:
    """Return why this TensorFlow cannot compile a function with XLA, in one sentence, or None if it can.

    TensorFlow for macOS, for Windows and for GPUs that a plugin adds may contain no XLA for the device. No public
    function tells whether it does, so the first call compiles an addition. Later calls return the same answer.
    """
    add_one = tf.function(lambda number: number + 1.0, jit_compile=True)
    try:
        with tf.init_scope():
            add_one(tf.constant(1.0))
    except (tf.errors.OpError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else "no message"
        return f"TensorFlow {tf.__version__} cannot compile with XLA here ({type(error).__name__}: {said})."
    return None


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
