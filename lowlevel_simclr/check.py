"""Prove the native ops on this machine: python -m lowlevel_simclr.check

Every case is computed by the native op, by the same formula in stock TensorFlow and by the NumPy float64 reference. The
check proves that

- the losses of NT-Xent, their gradients to z and to the temperature, and the pixels of the views are at most twice as
  far from the reference as stock TensorFlow is, plus a few roundings (lowlevel_simclr/verification/bound.py derives
  the bound);
- the LARS update is within a few roundings of the reference, without help from stock TensorFlow;
- top1 equals the reference's wherever rounding cannot decide it;
- the parameters drawn for the views are the reference's: integers exactly, numbers to two units in the last place of
  their range.

It runs on the CPU and on every GPU: eagerly, in graphs (CPU only) and inside XLA, where the native ops can run there.
The last line says whether all comparisons passed. --verbose adds a table of errors and bounds.
The exit code is 0 if every result is within its bound and 1 otherwise.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lowlevel_simclr.config.command_line import FlagParser
from lowlevel_simclr.runtime.start_up_lines import hide_start_up_lines
from lowlevel_simclr.runtime.tensorflow_start import start_tensorflow

if TYPE_CHECKING:
    from lowlevel_simclr.verification.bound import Finding


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.check") -> int:
    """Check the native ops on this machine. Return the exit code: 0 if every finding holds, 1 otherwise."""
    parser = FlagParser(prog=prog, description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="print the error and the bound of every quantity")
    verbose = parser.parse_strictly(sys.argv[1:] if argv is None else argv).verbose
    start_tensorflow()  # here, so that --help and --version answer at once
    from lowlevel_simclr.verification.table import write_verdict

    with hide_start_up_lines():  # a processor without float16 makes TensorFlow write once more
        findings = _check_devices(verbose)
    print(write_verdict(findings), flush=True)
    return 0 if all(finding.holds for finding in findings) else 1


def _check_devices(verbose: bool) -> list[Finding]:
    """Check the native ops on every device, print progress and return all findings."""
    from lowlevel_simclr import ops
    from lowlevel_simclr.ops import _library, _route
    from lowlevel_simclr.verification.every_op import judge_on_device, list_devices
    from lowlevel_simclr.verification.table import write_table

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
    import tensorflow as tf

    from lowlevel_simclr.ops import _library

    threads, instructions = _library.count_threads(), _library.find_instruction_set()
    cuda = f"CUDA kernels for {', '.join(build['cuda'])}" if build["cuda"] else "no CUDA kernels"
    print(f"TensorFlow      {tf.__version__}")
    print(f"native library  {build['version']}, {instructions} instructions, {threads} threads, {cuda}")
    print(f"inside XLA      {'not checked. ' + xla_error if xla_error else 'checked too'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
