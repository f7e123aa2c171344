"""python -m lowlevel_simclr.train: pretrains an encoder without labels, and writes one run folder.

If training was stopped, run the same command again. It resumes from the last checkpoint, and the weights are bit for
bit those of a run without a stop.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lowlevel_simclr.api.callable_module import make_callable
from lowlevel_simclr.api.program import run_program
from lowlevel_simclr.api.training import train
from lowlevel_simclr.config.command_line import FlagParser, build_run_parser, parse_run
from lowlevel_simclr.config.starting_point import choose_starting_point

__all__ = ["main", "train"]

DESCRIPTION = "Pretrain an encoder with SimCLR. Labels are used only for the evaluation at the end."


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.train") -> int:
    """Train the encoder, evaluate it and draw the pictures of the run. Return the exit code."""
    config, options = parse_run(argv, DESCRIPTION, prog)

    def work() -> int:
        # Here, so that --help does not import TensorFlow.
        from lowlevel_simclr.api.picture_settings import choose_for_pictures
        from lowlevel_simclr.api.session import run_session

        run_session(choose_for_pictures(config, options.given, options.out, options.fresh), options)
        return 0

    return run_program(work, "preparing the run", options.debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command. Its help shows the defaults of the default data set.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    return build_run_parser(choose_starting_point(None, None, None), DESCRIPTION, prog)


if __name__ == "__main__":
    sys.exit(main())
make_callable(__name__, train)
