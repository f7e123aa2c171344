"""Chooses how a native op calls its kernel: as a TensorFlow op, or (under jit_compile or on a GPU) through XLA.

The choice, called the route, is made while a function is traced. XLA cannot compile our TensorFlow ops. So XLA
calls the same kernels through its FFI (its interface to foreign functions). The call is written as a StableHLO module
(a program for XLA) in an XlaCallModule op. The library registers the kernels with the XLA that is loaded
(kernels/glue/ffi_runtime.h). The Python function for XlaCallModule is not a public API of TensorFlow. So a self-test at
first use finds out whether the route through XLA works. docs/tensorflow-versions.md lists the versions of TensorFlow
with which it works.

The TensorFlow ops have CPU kernels only. If a GPU is visible, graph and eager mode use the route through XLA too.
Otherwise TensorFlow would silently copy the tensors from the GPU to the CPU.

A tf.function keeps the route that it was traced with. Suppose that you first call a tf.function f outside
`jit_compile=True`, and later call f with the same shapes from a function that has `jit_compile=True`. Then f still
contains the TensorFlow op, and XLA rejects this op with an error that names it. Use one tf.function for calls with
`jit_compile=True`, and another one for calls without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from lowlevel_simclr.ops import _library
from lowlevel_simclr.runtime.xla import call_module, is_inside_xla

SINCE = "TensorFlow 2.18 or later"
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
    """A native op was used under jit_compile or on a GPU, but the XLA route does not work here."""


def takes_custom_call(tensor: tf.Tensor) -> bool:
    """Return whether an op on `tensor` goes through XLA: under jit_compile, or if the tensor may live on a GPU.

    Args:
        tensor: an input of the op.

    Raises:
        NotImplementedError: if the tensor may live on a GPU and the library was built without CUDA kernels.
    """
    if is_inside_xla():
        return True
    if not tf.config.get_visible_devices("GPU") or "CPU" in _find_device(tensor):
        return False
    if not _library.read_build_information()["cuda"]:
        raise NotImplementedError(
            "The native library was built without CUDA kernels, but this tensor may be on a GPU. Build it on a "
            "machine with nvcc (LOWLEVEL_SIMCLR_CUDA=1), put the op under tf.device('/CPU:0'), or use --ops stock."
        )
    return True


def _find_device(tensor: tf.Tensor) -> str:
    """Return the device on which an op on `tensor` will run, or "" if it is not known.

    In a graph, this is the device of the enclosing `tf.device` scope. If eager code calls a function inside a
    `tf.device` scope, the graph of the function names no device, but the function runs on the device of that scope.
    """
    return tf.identity(tensor).device or context.context().device_name or ""


def call_handler(
    target: str, inputs: Sequence[tf.Tensor], outputs: Sequence[Spec], in_place: Sequence[tuple[int, int]] = ()
) -> list[tf.Tensor]:
    """Call an FFI handler of the library through XLA.

    Args:
        target: name under which the library registered the handler.
        inputs: tensors with static shapes.
        outputs: shape and type of each result.
        in_place: pairs of positions (result, input). Each result takes over the memory of the input in its pair. If
            that input is still needed, XLA copies it first.

    Returns:
        The results, in the order of `outputs`.

    Raises:
        XlaRouteError: if the route does not work here. The message gives the reason.
        ValueError: if the shape of an input is not static.
    """
    why_not = find_route_error()
    if why_not is not None:
        raise XlaRouteError(why_not)
    for tensor in inputs:
        if not tensor.shape.is_fully_defined():
            raise ValueError(
                f"Under jit_compile and on a GPU the native ops need static shapes, but an input of {target} "
                f"has shape {tensor.shape}. Fix the batch size (drop_remainder=True), or turn jit_compile off and "
                "put the op under tf.device('/CPU:0')."
            )
    return _call_module(target, inputs, outputs, in_place)


def _call_module(
    target: str, inputs: Sequence[tf.Tensor], outputs: Sequence[Spec], in_place: Sequence[tuple[int, int]] = ()
) -> list[tf.Tensor]:
    arguments = [(tensor.shape.as_list(), tensor.dtype) for tensor in inputs]
    platforms = _list_platforms()
    module = _write_module(target, arguments, outputs, platforms, in_place)
    return call_module(inputs, module, outputs, platforms)


def _list_platforms() -> tuple[str, ...]:
    """Return the platforms for which the library has FFI handlers."""
    return ("CPU", "CUDA") if _library.read_build_information()["cuda"] else ("CPU",)


def _write_module(
    target: str,
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    platforms: Sequence[str] = ("CPU",),
    in_place: Sequence[tuple[int, int]] = (),
) -> str:
    """Return the StableHLO text of a function that consists of one custom call.

    A module for several platforms has an additional first argument: the number of the platform that it runs on.
    XlaCallModule passes this number.
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


def find_route_error() -> str | None:
    """Return why the XLA route does not work here and what to do, or None if it works.

    The first call runs the self-test. Later calls return the same answer.
    """
    why_not = find_route_problem()
    if why_not is None:
        return None
    return (
        f"XLA cannot call the native ops, so they do not work under jit_compile or on a GPU. {why_not} Turn "
        f"jit_compile off (on a GPU use --ops stock), or install {SINCE}."
    )


@functools.cache
def find_route_problem() -> str | None:
    """Return a sentence that says why the XLA route does not work here, or None if it works."""
    if not _library.read_build_information()["xla"]:
        return "The native library was built without XLA handlers, because TensorFlow's headers had no XLA FFI."
    refusal = _library.read_xla_refusal()
    if refusal:
        return f"{refusal.removesuffix('.')} (TensorFlow {tf.__version__})."
    try:
        with tf.init_scope():
            _test_route()
    except Exception as error:  # noqa: BLE001, a private API may raise anything in another version
        said = str(error).splitlines()[0] if str(error) else "no message"
        return f"A test call failed (TensorFlow {tf.__version__}, {type(error).__name__}: {said})."
    return None


def _test_route() -> None:
    """Check, with NT-Xent on a batch of four rows, that the XLA route returns the same bits as the TensorFlow op."""
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
        raise AssertionError("the XLA route and the TensorFlow op give different results")
