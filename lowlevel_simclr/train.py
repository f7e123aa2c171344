"""python -m lowlevel_simclr.train: pretrains an encoder without labels, and writes one run folder.

The same command again resumes the run where its last checkpoint left it, to the bit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lowlevel_simclr.api.callable_module import make_callable
from lowlevel_simclr.api.training import train
from lowlevel_simclr.config.command_line import parse_run
from lowlevel_simclr.runtime.tensorflow_start import start_tensorflow

__all__ = ["main", "train"]

DESCRIPTION = "Pretrain an encoder with SimCLR. Labels are used only for the evaluation at the end."


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.train") -> int:
    """Run the command: train, evaluate and draw; return the exit code."""
    config, options = parse_run(argv, DESCRIPTION, prog)
    start_tensorflow()  # here, so that --help and --version answer at once
    from lowlevel_simclr.api.errors import REPORTED
    from lowlevel_simclr.api.session import Stopped, run_session

    try:
        run_session(config, options)
    except Stopped as stopped:
        print(stopped)
    except REPORTED as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
make_callable(__name__, train)
