"""python -m lowlevel_simclr.export RUN --format FORMAT: writes the encoder of a run as files for other programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lowlevel_simclr.api.callable_module import make_callable
from lowlevel_simclr.api.export import EXPORT_FORMATS, EXPORT_WEIGHTS, export
from lowlevel_simclr.api.program import FlagParser, print_written, run_program

__all__ = ["export", "main"]

DESCRIPTION = "Write the encoder of a run as files for other programs, and check that they give the same output (h)."
EPILOG = """\
formats:
  keras        encoder.keras, and the three files that Keras loads from hf:// addresses
  saved_model  for TensorFlow Serving
  onnx         for onnxruntime             (pip install tf2onnx onnx onnxruntime)
  litert       for phones (was TF Lite)    (pip install ai-edge-litert)
  pytorch      a module and its weights    (pip install torch safetensors)"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.export") -> int:
    """Export the encoder, print how well the files agree with it, and print the folder. Return the exit code."""
    given = vars(build_parser(prog).parse_strictly(sys.argv[1:] if argv is None else argv))
    debug = given.pop("debug")

    def work() -> int:
        print_written(export(**given))
        return 0

    return run_program(work, "exporting the encoder", debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    parser = FlagParser(prog=prog, description=DESCRIPTION, epilog=EPILOG, usage="%(prog)s RUN --format FORMAT [flags]")
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("--format", choices=EXPORT_FORMATS, required=True, help="the format, see below")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="the folder for the files (default: RUN/export/FORMAT)"
    )
    parser.add_argument("--with-projection-head", action="store_true", help="return the projection (z) as well")
    parser.add_argument(
        "--no-preprocessing",
        dest="preprocessing",
        action="store_false",
        help="take float32 views that are resized and scaled already (default: uint8 images of any size)",
    )
    parser.add_argument("--image-size", metavar="N", type=int, help="take images of N x N pixels only")
    parser.add_argument(
        "--weights",
        choices=EXPORT_WEIGHTS,
        default=EXPORT_WEIGHTS[0],
        help="number type of the weights; float16 and int8 are for litert (default: float32)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
make_callable(__name__, export)
