"""python -m lowlevel_simclr.embed RUN IMAGES... --out FILE: embeds images with the encoder of a run.

The program writes the representation h (the output of the encoder) or the projection z (the output of the projection
head) of each image into a file. It can also find similar images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lowlevel_simclr.api.callable_module import make_callable
from lowlevel_simclr.api.networks import embed
from lowlevel_simclr.api.program import run_program
from lowlevel_simclr.config.command_line import FlagParser

__all__ = ["embed", "main"]

DESCRIPTION = """\
Write the representation (h) or the projection (z) of images, computed by the encoder of a run.

The images are processed in parts. If a command was stopped, run it again. It continues after the last whole part."""


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.embed") -> int:
    """Embed the images, write the file, and list on stderr the images that could not be read. Return the exit code."""
    given = build_parser(prog).parse_strictly(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        from lowlevel_simclr.api.embedding import (  # here, so that --help does not import TensorFlow
            EmbedOptions,
            embed_into_file,
        )

        embed_into_file(
            EmbedOptions(given.run, given.images, given.out, given.output, given.neighbours, given.duplicates)
        )
        return 0

    return run_program(work, "embedding images", given.debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    usage = "%(prog)s RUN IMAGES... --out FILE [flags]"
    parser = FlagParser(prog=prog, description=DESCRIPTION, usage=usage)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument(
        "images",
        metavar="IMAGES",
        type=Path,
        nargs="+",
        help="image files, folders of them, or what --dataset takes, such as list:FILE",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="the file to write; it ends in .npz, .csv or .parquet"
    )
    parser.add_argument("--output", choices=("h", "z"), default="h", help="h: the representation; z: the projection")
    parser.add_argument(
        "--neighbours",
        metavar="FILE",
        type=Path,
        nargs="+",
        default=(),
        help="print and draw the five images among IMAGES that are nearest to each of these photographs",
    )
    parser.add_argument(
        "--duplicates",
        metavar="THRESHOLD",
        type=_read_threshold,
        help="list and draw pairs of images with a cosine similarity of at least this, such as 0.99",
    )
    return parser


def _read_threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
make_callable(__name__, embed)
