"""Prove the native ops on this machine: python -m lowlevel_simclr.check

Every case is computed by the native op, by the same formula in stock TensorFlow and by the NumPy float64 reference. The
check proves the following:

- The losses of NT-Xent, their gradients to z and to the temperature, and the pixels of the views are at most twice as
  far from the reference as stock TensorFlow is, plus a few roundings (lowlevel_simclr/verification/bound.py derives
  this bound).
- The LARS update is within a few roundings of the reference, without help from stock TensorFlow.
- top1 equals that of the reference wherever rounding cannot decide it.
- The parameters drawn for the views equal those of the reference: integers exactly, numbers to two units in the last
  place of their range.

The check runs on the CPU and on every GPU: eagerly, in graphs (only on the CPU) and inside XLA. It leaves out XLA where
the native ops cannot run inside XLA. A platform without the native library has only the stock ops. There the same cases
compare them with the reference. The last line says whether all comparisons passed. --verbose adds a table of errors and
bounds.
The exit code is 0 if every result is within its bound and 1 otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lowlevel_simclr.api.program import FlagParser, run_program


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.check") -> int:
    """Check the native ops on this machine. Return the exit code: 0 if every finding holds, 1 otherwise."""
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
