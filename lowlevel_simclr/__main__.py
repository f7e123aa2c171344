"""lowlevel-simclr {train,evaluate,embed,check}, or python -m lowlevel_simclr: the programs as one command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from lowlevel_simclr.config.command_line import FlagParser

PROG = "lowlevel-simclr"
PROGRAMS = {
    "train": "pretrain an encoder without labels, and write one run folder",
    "evaluate": "evaluate the encoder of a run by the protocols people report",
    "embed": "write the representation of images",
    "check": "prove the installed ops on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the first argument names. Return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in PROGRAMS:
        program = importlib.import_module(f"lowlevel_simclr.{arguments[0]}")
        return program.main(arguments[1:], f"{PROG} {arguments[0]}")
    parser = FlagParser(
        prog=PROG,
        usage="%(prog)s {" + ",".join(PROGRAMS) + "} [flags]",
        description="SimCLR in TensorFlow with its own kernels.",
        epilog="\n".join(["programs:", *(f"  {name:<10}{text}" for name, text in PROGRAMS.items())]),
    )
    parser.add_argument("program", metavar="PROGRAM", choices=list(PROGRAMS), help="one of the programs below")
    parser.parse_strictly(arguments)
    raise AssertionError("the parser ends the program where no program is named")


if __name__ == "__main__":
    sys.exit(main())
