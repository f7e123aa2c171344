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
The exit code is 0 if every result is within its bound and 1 otherwise.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from lowlevel_simclr.config.command_line import FlagParser


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.check") -> int:
    """Check the native ops on this machine. Return the exit code: 0 if every finding holds, 1 otherwise."""
    FlagParser(prog=prog, description=__doc__).parse_strictly(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes do not concern the user
    # TensorFlow is imported here, so that --help and --version answer at once.
    import tensorflow as tf

    started = time.perf_counter()
    from lowlevel_simclr import ops
    from lowlevel_simclr.ops import _library, _route
    from lowlevel_simclr.verification.every_op import judge_on_device, list_devices
    from lowlevel_simclr.verification.table import write_table

    build, xla_error = _library.read_build_information(), _route.find_route_error()
    print(f"TensorFlow {tf.__version__}, {_library.find_instruction_set()}, {_library.count_threads()} threads")
    print(f"library: {build}")
    print(f"jit_compile: {xla_error or 'yes'}")
    findings = []
    for device in list_devices(xla_error, bool(build["cuda"])):
        if device.why_not:
            print(f"{device.name}: not checked, {device.why_not}")
            continue
        of_device = judge_on_device(ops, device)
        print(f"{device.name}, {', '.join(device.modes)}\n{write_table(of_device)}")
        findings += of_device
    failed = sum(not finding.holds for finding in findings)
    seconds = time.perf_counter() - started
    print(f"{len(findings)} findings, {failed} fail, {seconds:.0f} s; errors are in units of scale")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
