"""The choice of ops for the public functions and layers: native ops if possible, or stock TensorFlow."""

from __future__ import annotations

from types import ModuleType

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config import choices
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.runtime.platform_ops import choose_available_ops
from lowlevel_simclr.runtime.xla import is_inside_xla


def check_ops(ops: str) -> str:
    """Return a choice of ops.

    Raises:
        ConfigError: if there is no such choice.
    """
    if ops not in choices.OPS:
        raise ConfigError(f"ops is {ops!r}. It must be one of {', '.join(choices.OPS)}.")
    return ops


def choose_ops(ops: str, tensor: tf.Tensor) -> ModuleType:
    """Return `lowlevel_simclr.ops` or `lowlevel_simclr.stock`. Both compute the same.

    "auto" chooses the stock ops in three cases. This platform has no native library. There is a GPU, and the library
    was built without CUDA. XLA would have to call the library (under jit_compile, or on a GPU), but cannot: some
    versions of TensorFlow do not allow it, and the shape of `tensor` must be known. (Keras' `fit` leaves the batch size
    unknown.)

    Args:
        ops: "native", "stock" or "auto".
        tensor: the input of the op.

    Raises:
        NativeLibraryError: if this platform has the library, but it is missing, is from another version or
            does not load.
    """
    if choose_available_ops(ops) == "stock":
        return stock
    from lowlevel_simclr import ops as native
    from lowlevel_simclr.ops import _library

    if ops == "native":
        return native
    _library.load_library()  # a broken library raises an error here; stock ops do not replace it
    if is_inside_xla():
        return native if _is_reachable_by_xla(tensor) else stock
    if tf.config.get_visible_devices("GPU"):  # on a GPU, XLA calls every native op
        has_kernels = bool(_library.read_build_information()["cuda"])
        return native if has_kernels and _is_reachable_by_xla(tensor) else stock
    return native


def _is_reachable_by_xla(tensor: tf.Tensor) -> bool:
    """Return whether XLA can call the native op that takes `tensor`."""
    from lowlevel_simclr.ops import _route

    return tensor.shape.is_fully_defined() and _route.find_route_problem() is None
