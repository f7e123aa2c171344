"""Chooses where the functions for loss, views and update come from: the native library or TensorFlow (stock)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.optim.optimizers import LarsUpdateAll
from lowlevel_simclr.runtime.devices import has_gpu
from lowlevel_simclr.runtime.platform_ops import describe_platform, expects_library


def choose_implementation(ops: str, compiled: bool) -> Implementation:
    """Return the functions for the loss, the views and the update that a run uses.

    Only this function makes the choice. The run prints the choice at the start and keeps it in environment.json.

    Args:
        ops: "native" or "stock".
        compiled: whether XLA compiles the step.
    """
    if ops == "native":
        from lowlevel_simclr import ops as native  # imported here, so that --ops stock runs without the library

        chosen = Implementation.of("native", native)
        # XLA fuses the operations of the stock update. But on a GPU it still launches several hundred kernels, and the
        # native update launches only a few. So a run with native ops uses the stock update only under XLA on a CPU.
        fused = compiled and not has_gpu()
        return chosen._replace(lars_update_all=stock.lars_update_all) if fused else chosen
    return Implementation.of("stock", stock)


def refuse_unusable_library(ops: str, on_gpu: bool, compiled: bool) -> None:
    """Load the native library if the run uses it, and check that it can run the step.

    On a GPU this needs CUDA kernels. On a GPU or under XLA, it needs an XLA that can call the library. Without this
    check, a problem would show only when TensorFlow traces the first step.

    Args:
        ops: "native" or "stock".
        on_gpu: whether the step of the run is on a GPU.
        compiled: whether XLA compiles the step.

    Raises:
        ConfigError: in one of these cases. This platform has no library. The library is missing, has another version or
            does not load. The run needs CUDA kernels, and the library has none. The run needs XLA, and the XLA of this
            TensorFlow cannot call the library.
    """
    if ops != "native":
        return
    if not expects_library():
        raise ConfigError(
            f"--ops native needs the native library, which does not exist for {describe_platform()}. Use --ops auto or "
            "--ops stock."
        )
    from lowlevel_simclr.ops import _library

    try:
        _library.load_library()
        build = _library.read_build_information()
    except _library.NativeLibraryError as error:
        raise ConfigError(
            f"{str(error).removesuffix('.')}. Alternatively, use --ops stock, which is slower."
        ) from error
    if on_gpu and not build["cuda"]:
        raise ConfigError(
            "TensorFlow sees a GPU, but the native library was built without CUDA kernels. Install CUDA's compiler "
            "(nvcc) and run 'LOWLEVEL_SIMCLR_CUDA=1 pip install -e .' in the project's folder. "
            "Or use --ops stock, or set CUDA_VISIBLE_DEVICES=-1 to train on the CPU."
        )
    if on_gpu or compiled:
        _refuse_unreachable_xla(on_gpu)


def _refuse_unreachable_xla(on_gpu: bool) -> None:
    """Check that this TensorFlow's XLA can call the library. On a GPU, every native op is called through XLA."""
    from lowlevel_simclr.ops import _route

    why_not = _route.find_route_problem()
    if why_not is None:
        return
    needed, other = ("on a GPU", "set CUDA_VISIBLE_DEVICES=-1 to train on the CPU")
    if not on_gpu:
        needed, other = ("under --xla on", "use --xla off")
    raise ConfigError(
        f"The native ops do not work {needed} here. {why_not} Use --ops stock, install {_route.SINCE}, or {other}."
    )


class Implementation(NamedTuple):
    """The functions for the loss, the views and the update. Each has the signature of the function of that name in
    `stock`.

    Attributes:
        name: "native" or "stock". The run prints this name.
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
        """Return an implementation that takes all its functions from one module.

        Args:
            name: the name that the run prints.
            module: `stock` or `ops`.
        """
        return cls(name, **{field: getattr(module, field) for field in cls._fields[1:]})
