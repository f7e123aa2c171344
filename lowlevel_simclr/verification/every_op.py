"""Runs the test problems (cases) of all ops on the devices of this machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.verification.bound import Finding
from lowlevel_simclr.verification.lars_update import BEYOND_STOCK, LarsOps, judge_lars, list_lars_cases
from lowlevel_simclr.verification.make_views import ViewOps, judge_views, list_view_cases
from lowlevel_simclr.verification.mode import MODES
from lowlevel_simclr.verification.nt_xent import NtXentOps, judge_nt_xent, list_nt_xent_cases


class Ops(NtXentOps, ViewOps, LarsOps, Protocol):
    """An implementation of every op: the package `ops` or `stock`."""


class Device(NamedTuple):
    """A device, and the modes in which `check` runs ops on it."""

    name: str
    modes: Sequence[str]  # empty if nothing can be checked on the device
    why_not: str = ""


def judge_every_op(
    implementation: Ops, modes: Sequence[str] = ("eager", "graph"), tell: Callable[[str], object] = lambda text: None
) -> list[Finding]:
    """Run every case in the given modes, and return the findings (an error and its bound each).

    The implementation is right if all findings hold, which means that no error is above its bound.

    Args:
        implementation: the ops to judge.
        modes: some of eager, graph and xla.
        tell: called with a progress message before the cases of each op.
    """
    findings: list[Finding] = []
    losses, views, updates = list(list_nt_xent_cases(modes)), list(list_view_cases(modes)), list(list_lars_cases(modes))
    if implementation is stock:
        updates = [case for case in updates if case.rows not in BEYOND_STOCK]
    with silence_retracing_warnings():
        tell(f"checking the loss and its gradients, {len(losses)} cases ...")
        findings += [finding for case in losses for finding in judge_nt_xent(case, implementation)]
        tell(f"checking the views, {len(views)} cases ...")
        findings += [finding for case in views for finding in judge_views(case, implementation)]
        tell(f"checking the LARS update, {len(updates)} cases ...")
        findings += [finding for case in updates for finding in judge_lars(case, implementation)]
    return findings


@contextlib.contextmanager
def silence_retracing_warnings() -> Iterator[None]:
    """Drop TensorFlow's warnings about functions that are traced often, because every case makes a new function."""

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def judge_on_device(
    implementation: Ops, device: Device, tell: Callable[[str], object] = lambda text: None
) -> list[Finding]:
    """Run every case on a device, without TensorFloat-32.

    TensorFloat-32 is off because its products keep only 10 bits of each factor, so its errors would widen the bound.

    Args:
        implementation: the ops to judge.
        device: the device, and the modes in which to run the ops on it.
        tell: called with a progress message before the cases of each op.
    """
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with tf.device(device.name):
            return judge_every_op(implementation, device.modes, lambda text: tell(f"{device.name}: {text}"))
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def list_devices(xla_error: str | None, has_cuda: bool) -> Iterator[Device]:
    """Yield the CPU and every GPU, with the modes in which the native ops run on it.

    On a GPU every native op is an XLA custom call and needs a known batch size, so there is no graph mode.

    Args:
        xla_error: why the native ops cannot run inside XLA, or None if they can.
        has_cuda: whether the native library contains CUDA kernels.
    """
    yield Device("/CPU:0", [mode for mode in MODES if mode != "xla" or not xla_error])
    why_not = xla_error or ("" if has_cuda else "the library was built without CUDA kernels")
    for number, _ in enumerate(tf.config.list_logical_devices("GPU")):
        yield Device(f"/GPU:{number}", () if why_not else ("eager", "xla"), why_not)


def list_stock_devices(xla_error: str | None) -> Iterator[Device]:
    """Yield the CPU and every GPU, with the modes in which the stock ops run on it: without XLA, not the mode xla.

    Args:
        xla_error: why XLA cannot compile here, or None if it can.
    """
    modes = [mode for mode in MODES if mode != "xla" or not xla_error]
    yield Device("/CPU:0", modes)
    for number, _ in enumerate(tf.config.list_logical_devices("GPU")):
        yield Device(f"/GPU:{number}", modes)
