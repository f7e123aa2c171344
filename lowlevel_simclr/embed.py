"""python -m lowlevel_simclr.embed RUN IMAGES... --out FILE.npz: writes h or z of any images into a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lowlevel_simclr.api.callable_module import make_callable
from lowlevel_simclr.api.networks import embed
from lowlevel_simclr.api.program import run_program
from lowlevel_simclr.config.command_line import FlagParser
from lowlevel_simclr.config.names import show_name

__all__ = ["embed", "main"]

DESCRIPTION = "Write the representation (h) or the projection (z) of images, computed by the encoder of a run."


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.embed") -> int:
    """Run the command: embed, write, and name on stderr what could not be read. Return the exit code."""
    given = build_parser(prog).parse_strictly(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        from lowlevel_simclr.api.networks import write_rows  # here, so that --help does not import TensorFlow

        rows, bad = write_rows(given.run, given.images, given.out, given.output)
        for path, reason in bad:
            print(f"Skipped {show_name(path)}: {show_name(reason)}", file=sys.stderr)
        kind = {"h": "representation (h)", "z": "projection (z)"}[given.output]
        print(f"Wrote the {kind} of {len(rows)} images, {rows.shape[1]} numbers each, to {show_name(given.out)}.")
        if bad:
            print(f"{len(bad)} image{'s' * (len(bad) > 1)} could not be read, see above.")
        return 0

    return run_program(work, "embedding images", given.debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    usage = "%(prog)s RUN IMAGES... --out FILE.npz [--output z]"
    parser = FlagParser(prog=prog, description=DESCRIPTION, usage=usage)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument(
        "images",
        metavar="IMAGES",
        type=Path,
        nargs="+",
        help="image files, folders of them, or what --dataset takes, such as list:FILE",
    )
    parser.add_argument("--out", metavar="FILE.npz", type=Path, required=True, help="the file to write")
    parser.add_argument("--output", choices=("h", "z"), default="h", help="h: the representation; z: the projection")
    return parser


if __name__ == "__main__":
    sys.exit(main())
make_callable(__name__, embed)
