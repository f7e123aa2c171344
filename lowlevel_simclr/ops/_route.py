"""Which way a call of a native op takes: the TensorFlow op, or under jit_compile and on a GPU an XLA custom call.

The choice is made while a function is traced. XLA cannot compile our TensorFlow ops, so inside its reach the same
kernels are called through XLA's FFI, as a StableHLO module in an XlaCallModule op. The TensorFlow ops have kernels for
the CPU alone; where a GPU is visible, the custom call is taken in graph and eager mode too, so that nothing is copied
to the host in silence. That op's Python function is no public API of TensorFlow; a self-test at first use decides
whether the way is open here.

A tf.function keeps the way it was traced with: one that was first called outside and then inside `jit_compile=True`
with the same shapes still holds the TensorFlow op, and XLA refuses it by the op's name. Give each place its own
tf.function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from lowlevel_simclr.ops import _library
from lowlevel_simclr.runtime.xla import is_inside_xla

TRIED = "it works with TensorFlow 2.21 and not with 2.15, whose library has no XLA FFI"
_MLIR_TYPES = {
    tf.float32: "f32",
    tf.float64: "f64",
    tf.bfloat16: "bf16",
    tf.float16: "f16",
    tf.uint8: "ui8",
    tf.uint16: "ui16",
    tf.int32: "i32",
    tf.int64: "i64",
    tf.bool: "i1",
}

Spec = tuple[Sequence[int], tf.DType]


class XlaRouteError(RuntimeError):
    """A native op was used under jit_compile where the XLA route does not work."""


def takes_custom_call(tensor: tf.Tensor) -> bool:
    """Whether an op on `tensor` goes through XLA: inside its reach, or where the tensor may live on a GPU.

    Raises:
        NotImplementedError: it may live on a GPU and the library has no CUDA kernels.
    """
    if is_inside_xla():
        return True
    if not tf.config.get_visible_devices("GPU") or "CPU" in _find_device(tensor):
        return False
    if not _library.read_build_information()["cuda"]:
        raise NotImplementedError(
            "The native library was built without CUDA kernels and this tensor may live on a GPU: build it where nvcc "
            "is (LOWLEVEL_SIMCLR_CUDA=1), put the op under tf.device('/CPU:0'), or use the stock ops (--ops stock)."
        )
    return True


def _find_device(tensor: tf.Tensor) -> str:
    """The device on which an op on `tensor` will run, as far as can be known: in a graph that of the scope.

    A function that is traced within an eager `tf.device` has no device in its graph, but runs there.
    """
    return tf.identity(tensor).device or context.context().device_name or ""


def call_handler(
    target: str, inputs: Sequence[tf.Tensor], outputs: Sequence[Spec], in_place: Sequence[tuple[int, int]] = ()
) -> list[tf.Tensor]:
    """Call the FFI handler `target` through XLA.

    Args:
        target: name under which the library registered the handler.
        inputs: tensors of static shapes.
        outputs: shape and type of each result.
        in_place: pairs of a result and the input whose memory it takes; XLA copies an input that is still needed.

    Raises:
        XlaRouteError: the route does not work here, and why.
        ValueError: an input's shape is not static.
    """
    why_not = find_route_error()
    if why_not is not None:
        raise XlaRouteError(why_not)
    for tensor in inputs:
        if not tensor.shape.is_fully_defined():
            raise ValueError(
                f"Under jit_compile and on a GPU the native ops need static shapes, and an input of {target} "
                f"has shape {tensor.shape}: fix the batch size (drop_remainder=True), or for an unknown batch leave "
                "jit_compile off and put the op under tf.device('/CPU:0')."
            )
    return _call_module(target, inputs, outputs, in_place)


def _call_module(
    target: str, inputs: Sequence[tf.Tensor], outputs: Sequence[Spec], in_place: Sequence[tuple[int, int]] = ()
) -> list[tf.Tensor]:
    from tensorflow.compiler.tf2xla.python import xla

    arguments = [(tensor.shape.as_list(), tensor.dtype) for tensor in inputs]
    results = xla.call_module(
        list(inputs),
        version=9,
        module=_write_module(target, arguments, outputs, _list_platforms(), in_place),
        Tout=[dtype for _, dtype in outputs],
        Sout=[list(shape) for shape, _ in outputs],
        platforms=_list_platforms(),
    )
    return list(results)


def _list_platforms() -> tuple[str, ...]:
    """Where the library's FFI handlers run."""
    return ("CPU", "CUDA") if _library.read_build_information()["cuda"] else ("CPU",)


def _write_module(
    target: str,
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    platforms: Sequence[str] = ("CPU",),
    in_place: Sequence[tuple[int, int]] = (),
) -> str:
    """StableHLO text of a function that is one custom call.

    A module for several platforms takes the number of the one it runs on as its first argument, which XlaCallModule
    gives.
    """
    taken, given = [_write_tensor_type(spec) for spec in inputs], [_write_tensor_type(spec) for spec in outputs]
    names = [f"%a{i}" for i in range(len(taken))]
    platform = ["%platform: tensor<i32>"] if len(platforms) > 1 else []
    parameters = ", ".join(platform + [f"{name}: {kind}" for name, kind in zip(names, taken)])
    results = ", ".join(f"%r#{i}" for i in range(len(given)))
    signature = f"({', '.join(taken)}) -> ({', '.join(given)})"
    attributes = "api_version = 4 : i32"
    if in_place:
        aliases = (
            f"#stablehlo.output_operand_alias<output_tuple_indices = [{result}], operand_index = {operand}, "
            "operand_tuple_indices = []>"
            for result, operand in in_place
        )
        attributes += f", output_operand_aliases = [{', '.join(aliases)}]"
    return (
        f"module @{target} {{ func.func public @main({parameters}) -> ({', '.join(given)}) {{ "
        f"%r:{len(given)} = stablehlo.custom_call @{target}({', '.join(names)}) {{{attributes}}} "
        f": {signature} return {results} : {', '.join(given)} }} }}"
    )


def _write_tensor_type(spec: Spec) -> str:
    shape, dtype = spec
    return f"tensor<{''.join(f'{size}x' for size in shape)}{_MLIR_TYPES[dtype]}>"


@functools.cache
def find_route_error() -> str | None:
    """Why the XLA route does not work here, or None when it does: the self-test, run once."""
    if not _library.read_build_information()["xla"]:
        return (
            "The native library was built without XLA handlers, so jit_compile cannot reach it: build it beside "
            f"TensorFlow 2.21 (or install its wheel), or leave jit_compile off. Tried: {TRIED}."
        )
    try:
        with tf.init_scope():
            _test_route()
    except Exception as error:  # noqa: BLE001, what a private API raises elsewhere is not known
        return (
            f"jit_compile cannot reach the native ops with TensorFlow {tf.__version__} ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}): leave jit_compile off. Tried: {TRIED}."
        )
    return None


def _test_route() -> None:
    """Two pairs: the XLA route must give the bits that the op gives."""
    z = tf.constant([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]], tf.float32)
    temperature = tf.constant(0.5, tf.float64)
    outputs = [((4,), tf.float32), ((4, 2), tf.float32), ((4,), tf.float32), ((4,), tf.bool)]
    call: Callable[[], Any] = tf.function(
        lambda: _call_module("lowlevel_simclr_nt_xent", [z, temperature], outputs)[0], jit_compile=True
    )
    with tf.device("/CPU:0"):
        expected = _library.load_library().lowlevel_simclr_nt_xent(z=z, temperature=temperature, S=tf.float32)[0]
        found = call()
    if not bool(tf.reduce_all(found == expected)):
        raise AssertionError("the XLA route gives other numbers than the op")
