"""The program `python -m lowlevel_simclr.embed RUN IMAGES... --out FILE.npz`: writes h, or z, of any images."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # set before TensorFlow loads; hides its start-up notes

import sys
from collections.abc import Sequence
from pathlib import Path

from lowlevel_simclr.config.command_line import FlagParser
from lowlevel_simclr.config.identity import from_dict
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation.embed_files import (
    EmbedError,
    embed_files,
    find_images,
    make_embedder,
    read_stored_shape,
    write_embeddings,
)
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkpoint import CheckpointError
from lowlevel_simclr.run.results import read_config

DESCRIPTION = "Write the representation (h) or the projection (z) of images, computed by the encoder of a run."


def main(argv: Sequence[str] | None = None) -> int:
    """Embed images and write the file. Name unreadable images on stderr. Return the exit code."""
    given = _build_parser().parse_strictly(sys.argv[1:] if argv is None else argv)
    try:
        config = from_dict(read_config(given.run))
        files = find_images(given.images)
        shape = read_stored_shape(given.run)
        scaling = PixelScaling(config.model.input_mean, config.model.input_std)
        embed = make_embedder(given.run, config.model, scaling, shape.channels, given.output)
        rows, paths, bad = embed_files(files, embed, shape)
        write_embeddings(given.out, rows, paths, given.output)
    except (ConfigError, RunError, CheckpointError, EmbedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, reason in bad:
        print(f"Skipped {path}: {reason}", file=sys.stderr)
    print(f"Wrote {given.output} {rows.shape} of {len(paths)} images to {given.out} ({len(bad)} skipped)")
    return 0


def _build_parser() -> FlagParser:
    """Return the parser of the program's flags."""
    usage = "%(prog)s RUN IMAGES... --out FILE.npz [--output z]"
    parser = FlagParser(prog="python -m lowlevel_simclr.embed", description=DESCRIPTION, usage=usage)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("images", metavar="IMAGES", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", metavar="FILE.npz", type=Path, required=True, help="the file to write")
    parser.add_argument("--output", choices=("h", "z"), default="h", help="h: the representation; z: the projection")
    return parser


if __name__ == "__main__":
    sys.exit(main())
