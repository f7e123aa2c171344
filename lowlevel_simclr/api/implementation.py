"""The choice of ops for the public functions and layers: native ops if possible, or stock TensorFlow."""

from __future__ import annotations

from types import ModuleType

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config import choices
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.runtime.xla import is_inside_xla

OPS = ("auto", *choices.OPS)


def check_ops(ops: str) -> str:
    """Return a choice of ops.

    Raises:
        ConfigError: there is no such choice.
    """
    if ops not in OPS:
        raise ConfigError(f"ops is {ops!r}. It must be one of {', '.join(OPS)}.")
    return ops


def choose_ops(ops: str, tensor: tf.Tensor) -> ModuleType:
    """Return `lowlevel_simclr.ops` or `lowlevel_simclr.stock`; both compute the same.

    Args:
        ops: "native" or "stock"; "auto" is native unless the native ops cannot be reached: no library was built for
            this platform, or the library was built without CUDA and there is a GPU, or under jit_compile and on a GPU
            TensorFlow cannot call the library, or there the shape of `tensor` is unknown (Keras' `fit` leaves the
            batch unknown).
        tensor: what the op takes.

    Raises:
        NativeLibraryError: the library is there, but is from another version or does not load.
    """
    if ops == "stock":
        return stock
    from lowlevel_simclr import ops as native
    from lowlevel_simclr.ops import _library

    if ops == "native":
        return native
    if not _library.PATH.exists():
        return stock
    _library.load_library()  # a broken library is an error, not a reason for other ops
    if is_inside_xla():
        return native if _is_reachable_by_xla(tensor) else stock
    if tf.config.get_visible_devices("GPU"):  # there every native op is a call by XLA
        has_kernels = bool(_library.read_build_information()["cuda"])
        return native if has_kernels and _is_reachable_by_xla(tensor) else stock
    return native


def _is_reachable_by_xla(tensor: tf.Tensor) -> bool:
    """Return whether XLA can call the native op that takes `tensor`."""
    from lowlevel_simclr.ops import _route

    return tensor.shape.is_fully_defined() and _route.find_route_problem() is None
