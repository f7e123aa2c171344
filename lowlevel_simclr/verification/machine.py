"""Checks the ops on this machine, and prints what is checked and what was found."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.runtime.platform_ops import describe_platform, expects_library
from lowlevel_simclr.runtime.start_up_lines import hide_start_up_lines
from lowlevel_simclr.runtime.xla import find_xla_problem
from lowlevel_simclr.verification.bound import Finding
from lowlevel_simclr.verification.every_op import Device, Ops, judge_on_device, list_devices, list_stock_devices
from lowlevel_simclr.verification.table import write_table


def check_machine(verbose: bool) -> list[Finding]:
    """Check the ops on every device of this machine, print progress, and return all findings (errors and their bounds).

    The function checks the native ops. On a platform without the native library it checks the stock ops.

    Args:
        verbose: whether to print a table of errors for each device.

    Raises:
        NativeLibraryError: if this platform has the native library, but it is missing or does not load.
    """
    with hide_start_up_lines():  # on a processor without float16 units, TensorFlow prints a start-up line here
        if not expects_library():
            return _check_stock(verbose)
        return _check_native(verbose)


def _check_native(verbose: bool) -> list[Finding]:
    from lowlevel_simclr import ops
    from lowlevel_simclr.ops import _library, _route

    build, xla_error = _library.read_build_information(), _route.find_route_error()
    threads, instructions = _library.count_threads(), _library.find_instruction_set()
    _print_subject(_describe_library(build, instructions, threads), xla_error)
    return _check_devices(ops, list_devices(xla_error, bool(build["cuda"])), verbose)


def _check_stock(verbose: bool) -> list[Finding]:
    xla_error = find_xla_problem()
    _print_subject(f"none for {describe_platform()}, so the stock ops are checked", xla_error)
    return _check_devices(stock, list_stock_devices(xla_error), verbose)


def _check_devices(ops: Ops, devices: Iterable[Device], verbose: bool) -> list[Finding]:
    tell = functools.partial(print, flush=True)
    findings = []
    for device in devices:
        if device.why_not:
            tell(f"{device.name}: not checked. {device.why_not}")
            continue
        found = judge_on_device(ops, device, tell)
        if verbose:
            tell(f"{device.name} ({', '.join(device.modes)}); errors are in units of the quantity's size")
            tell(write_table(found))
        findings += found
    return findings


def _describe_library(build: Mapping[str, Any], instructions: str, threads: int) -> str:
    cuda = f"CUDA kernels for {', '.join(build['cuda'])}" if build["cuda"] else "no CUDA kernels"
    return f"{build['version']}, {instructions} instructions, {threads} threads, {cuda}"


def _print_subject(library: str, xla_error: str | None) -> None:
    """Print what is checked: the version of TensorFlow, the native library, and whether the ops run inside XLA."""
    print(f"TensorFlow      {tf.__version__}")
    print(f"native library  {library}")
    print(f"inside XLA      {'not checked. ' + xla_error if xla_error else 'checked too'}", flush=True)
