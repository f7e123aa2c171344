"""Chooses the ops for the public functions and layers: native ops if possible, otherwise stock TensorFlow.

Native ops are this package's own C++ and CUDA code. Stock ops are the same formulas in plain TensorFlow.
"""

from __future__ import annotations

from types import ModuleType

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config import choices
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.runtime.platform_ops import choose_available_ops
from lowlevel_simclr.runtime.xla import is_inside_xla


def check_ops(ops: str) -> str:
    """Return `ops` unchanged, if it is a known choice.

    Raises:
        ConfigError: if it is not "native", "stock" or "auto".
    """
    if ops not in choices.OPS:
        raise ConfigError(f"ops is {ops!r}. It must be one of {', '.join(choices.OPS)}.")
    return ops


def choose_ops(ops: str, tensor: tf.Tensor) -> ModuleType:
    """Return the module `lowlevel_simclr.ops` or `lowlevel_simclr.stock`. Both have the same functions.

    "auto" chooses the stock ops in three cases:

    - This platform has no native library.
    - There is a GPU, and the library was built without CUDA.
    - XLA must call the library (under jit_compile, or on a GPU), but cannot. Either this version of TensorFlow does not
      allow it, or the shape of `tensor` is not fully known. In Keras' `fit`, for example, the batch size is unknown.

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
    _library.load_library()  # a broken library raises an error; the stock ops do not hide the problem
    if is_inside_xla():
        return native if _is_reachable_by_xla(tensor) else stock
    if tf.config.get_visible_devices("GPU"):  # on a GPU, every native op is called through XLA
        has_kernels = bool(_library.read_build_information()["cuda"])
        return native if has_kernels and _is_reachable_by_xla(tensor) else stock
    return native


def _is_reachable_by_xla(tensor: tf.Tensor) -> bool:
    """Return whether XLA can call the native op that takes `tensor`."""
    from lowlevel_simclr.ops import _route

    return tensor.shape.is_fully_defined() and _route.find_route_problem() is None
