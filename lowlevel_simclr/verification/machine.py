"""The check of the native ops on this machine, with the lines that it prints."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from lowlevel_simclr import ops
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.runtime.start_up_lines import hide_start_up_lines
from lowlevel_simclr.verification.bound import Finding
from lowlevel_simclr.verification.every_op import judge_on_device, list_devices
from lowlevel_simclr.verification.table import write_table


def check_machine(verbose: bool) -> list[Finding]:
    """Check the native ops on every device of this machine, print progress, and return all findings.

    Args:
        verbose: whether to print the table of each device.
    """
    with hide_start_up_lines():  # without float16 units, TensorFlow writes one more line
        return _check_devices(verbose)


def _check_devices(verbose: bool) -> list[Finding]:
    tell = functools.partial(print, flush=True)
    build, xla_error = _library.read_build_information(), _route.find_route_error()
    _print_library(build, xla_error)
    findings = []
    for device in list_devices(xla_error, bool(build["cuda"])):
        if device.why_not:
            tell(f"{device.name}: not checked. {device.why_not}")
            continue
        found = judge_on_device(ops, device, tell)
        if verbose:
            tell(f"{device.name} ({', '.join(device.modes)}); errors are in units of the quantity's size")
            tell(write_table(found))
        findings += found
    return findings


def _print_library(build: Mapping[str, Any], xla_error: str | None) -> None:
    """Print what is checked: TensorFlow, the native library, and whether its ops run inside XLA."""
    threads, instructions = _library.count_threads(), _library.find_instruction_set()
    cuda = f"CUDA kernels for {', '.join(build['cuda'])}" if build["cuda"] else "no CUDA kernels"
    print(f"TensorFlow      {tf.__version__}")
    print(f"native library  {build['version']}, {instructions} instructions, {threads} threads, {cuda}")
    print(f"inside XLA      {'not checked. ' + xla_error if xla_error else 'checked too'}", flush=True)
