"""Whose loss, views and update a run uses: the native library's or stock TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.optim.optimizers import LarsUpdateAll
from lowlevel_simclr.runtime.devices import has_gpu


def choose_implementation(ops: str, compiled: bool) -> Implementation:
    """Whose loss, views and update are used: chosen here alone, said at the start and kept in the run folder.

    Args:
        ops: native or stock.
        compiled: whether XLA compiles the step.
    """
    if ops == "native":
        from lowlevel_simclr import ops as native  # here, so that --ops stock runs without the binary

        chosen = Implementation.of("native", native)
        # XLA fuses the stock update by itself, on a GPU to some hundred kernels, of which the native one has a few.
        fused = compiled and not has_gpu()
        return chosen._replace(lars_update_all=stock.lars_update_all) if fused else chosen
    return Implementation.of("stock", stock)


def refuse_missing_library(ops: str) -> None:
    """The native library is loaded now, if its ops are asked for, and not when the first step is traced.

    Raises:
        ConfigError: it is missing, of another version, or does not load.
    """
    if ops != "native":
        return
    from lowlevel_simclr.ops import _library

    try:
        _library.load_library()
    except _library.NativeLibraryError as error:
        raise ConfigError(f"{str(error).removesuffix('.')}; or give --ops stock, which is slower") from error


class Implementation(NamedTuple):
    """Whose loss, views and update are used.

    name: as it is said to the user. The functions have the signatures of those in `stock`.
    """

    name: str
    nt_xent_and_top1: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    draw_view_params: Callable[..., Any]
    make_views: Callable[..., tf.Tensor]
    nt_xent_rows_forward_and_top1: Callable[..., tuple[tf.Tensor, tf.Tensor, Any]]
    nt_xent_rows_backward: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    lars_update_all: LarsUpdateAll

    @classmethod
    def of(cls, name: str, module: Any) -> Implementation:
        """Everything from one module: `stock`, or `ops`."""
        return cls(name, **{field: getattr(module, field) for field in cls._fields[1:]})
