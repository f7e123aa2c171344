"""python -m lowlevel_simclr.report RUN [RUN ...]: writes an HTML page about one run, or a comparison of several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lowlevel_simclr.api.program import FlagParser, print_written, run_program

DESCRIPTION = "Write a page about a run, or one that compares runs. The page needs no other file and no network."


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.report") -> int:
    """Read the runs, write the page, and print its path. Return the exit code."""
    given = build_parser(prog).parse_strictly(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        from lowlevel_simclr.api.reporting import write_report  # here, so that --help is fast

        written = write_report(given.runs, given.out)
        print_written(written)
        return 0

    return run_program(work, "writing the report", given.debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    parser = FlagParser(prog=prog, description=DESCRIPTION, usage="%(prog)s RUN [RUN ...] [--out FILE.html]")
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folders that training wrote")
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        type=Path,
        help="the file to write (default: RUN/report.html; of several runs: comparison.html)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
