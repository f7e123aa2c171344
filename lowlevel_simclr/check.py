"""Check that the native ops compute correctly on this machine: python -m lowlevel_simclr.check

The native ops are this package's own C++ and CUDA code. Each test case is computed in three ways: with the native op,
with the same formula in plain ("stock") TensorFlow, and with a reference in NumPy float64. The check proves the
following:

- For NT-Xent (SimCLR's loss), its gradients with respect to the projections z and to the temperature, and the pixels of
  the views (random crops of the images): the error against the reference is at most twice the error of stock
  TensorFlow, plus a few roundings (lowlevel_simclr/verification/bound.py derives this bound).
- The update of LARS (an optimizer) differs from the reference by at most a few roundings. Stock TensorFlow plays no
  part in this bound.
- top1 (whether a view is most similar to the other view of its image) equals the reference, except where the
  similarities differ by no more than rounding errors.
- The random parameters of the views equal those of the reference: whole numbers exactly, other numbers to two units in
  the last place of their range.

The check runs on the CPU and on every GPU: eagerly, in graphs (only on the CPU) and inside XLA (only where XLA can call
the native ops). On a platform without the native library, the same cases compare the stock ops with the reference. The
last line says whether all comparisons passed. --verbose adds a table of errors and bounds.
The exit code is 0 if every result is within its bound and 1 otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lowlevel_simclr.api.program import FlagParser, run_program


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.check") -> int:
    """Check the native ops on this machine. Return the exit code: 0 if all results are within bounds, 1 otherwise."""
    given = build_parser(prog).parse_strictly(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        from lowlevel_simclr.verification.machine import (
            check_machine,  # here, so that --help does not import TensorFlow
        )
        from lowlevel_simclr.verification.table import write_verdict

        findings = check_machine(given.verbose)
        print(write_verdict(findings), flush=True)
        return 0 if all(finding.holds for finding in findings) else 1

    return run_program(work, "checking the ops", given.debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    parser = FlagParser(prog=prog, description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="print the error and the bound of every quantity")
    return parser


if __name__ == "__main__":
    sys.exit(main())
