"""Times whole steps in two kinds of loop: python -m bench.step.bench_step_loop [--out FILE] [flags of the job].

    called   the loop calls the step, which is a separate function; this is the default on a processor
    inline   the loop contains the operations of the step; this is the default on a GPU without XLA

The bench times both loops and the encoder alone alternately, in several processes (`step_ways.py`).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Sequence

from bench.step import step_ways
from bench.step.job import Job

WAYS: step_ways.Ways = {
    "called": lambda config: Job(config, inline_step=False),
    "inline": lambda config: Job(config, inline_step=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both loops, store the result and print it."""
    step_ways.run_bench("bench.step.bench_step_loop", __doc__, WAYS, "step_loop.json", arguments)


if __name__ == "__main__":
    main()
