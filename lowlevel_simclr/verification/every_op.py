"""All cases of all ops, and the devices on which they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from lowlevel_simclr.verification.bound import Finding
from lowlevel_simclr.verification.lars_update import LarsOps, judge_lars, list_lars_cases
from lowlevel_simclr.verification.make_views import ViewOps, judge_views, list_view_cases
from lowlevel_simclr.verification.mode import MODES
from lowlevel_simclr.verification.nt_xent import NtXentOps, judge_nt_xent, list_nt_xent_cases


class Ops(NtXentOps, ViewOps, LarsOps, Protocol):
    """An implementation of every op: the package `ops` or `stock`."""


class Device(NamedTuple):
    """A device, and the modes in which ops are checked there."""

    name: str
    modes: Sequence[str]  # empty where nothing can be checked
    why_not: str = ""


def judge_every_op(implementation: Ops, modes: Sequence[str] = ("eager", "graph")) -> list[Finding]:
    """Run every case in the given modes. The implementation is right if all findings hold."""
    findings = [finding for case in list_nt_xent_cases(modes) for finding in judge_nt_xent(case, implementation)]
    findings += [finding for case in list_view_cases(modes) for finding in judge_views(case, implementation)]
    findings += [finding for case in list_lars_cases(modes) for finding in judge_lars(case, implementation)]
    return findings


def judge_on_device(implementation: Ops, device: Device) -> list[Finding]:
    """Run every case on a device, without TensorFloat-32, whose errors the stock formula must not have."""
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with tf.device(device.name):
            return judge_every_op(implementation, device.modes)
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def list_devices(xla_error: str | None, has_cuda: bool) -> Iterator[Device]:
    """Yield the CPU and every GPU.

    On a GPU the ops are XLA custom calls in every mode and need a known batch, so there is no graph mode.

    Args:
        xla_error: why the native ops cannot run inside XLA, or None if they can.
        has_cuda: whether the native library contains CUDA kernels.
    """
    yield Device("/CPU:0", [mode for mode in MODES if mode != "xla" or not xla_error])
    why_not = xla_error or ("" if has_cuda else "the library was built without CUDA kernels")
    for number, _ in enumerate(tf.config.list_logical_devices("GPU")):
        yield Device(f"/GPU:{number}", () if why_not else ("eager", "xla"), why_not)
